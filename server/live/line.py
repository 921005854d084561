"""The one line of sound of a session: what is fed to the engine and leaves with its pictures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from engine.errors import ConfigError
from server.live.broadcast import Broadcast
from server.live.clips import Chunk
from server.live.engine_stream import EngineStream
from server.live.figures import Figures
from server.live.pacing import Playout
from server.live.speech import SpeechInput
from server.sound.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Intake, Pcm48

TICK_S = PACKET_SAMPLES / SOUND_RATE_HZ / 2
KEPT = SOUND_RATE_HZ // 5  # samples of speech that stay at hand: its sender may falter
Voice = Literal["microphone", "assistant", "both"]


class SoundLine:
    """Fed in real time by the microphone, or silence in its place, and by what the assistant says.

    Args:
        voice: who is spoken by the face; of `both` the sum.
        wake: called when the engine has new work.

    Raises:
        ConfigError: `voice` is unknown.
    """

    def __init__(
        self,
        stream: EngineStream,
        playout: Playout,
        broadcast: Broadcast,
        speech: SpeechInput,
        figures: Figures,
        *,
        voice: Voice,
        wake: Callable[[], None],
    ) -> None:
        if voice not in get_args(Voice):
            raise ConfigError(f"voice={voice!r} is unknown; microphone, assistant or both")
        self.voice = voice
        self.place = 0  # samples fed
        self.intake: Intake | None = None  # while it is live
        self._stream, self._playout, self._broadcast = stream, playout, broadcast
        self._speech, self._figures, self._wake = speech, figures, wake
        self._taps: list[Callable[[Pcm48], None]] = []

    def begin(self) -> None:
        """Go on from the present: nothing was fed for a while, or ever."""
        self.intake = Intake(time.monotonic())
        self._playout.restart()
        self._stream.go_on()

    def renew(self) -> None:
        """Another microphone is heard, or none: its time stamps have nothing to do with the last one's."""
        if self.intake is not None:
            self.intake = Intake(time.monotonic())

    def end(self) -> None:
        """Nothing is fed any more."""
        self.intake = None

    def hear(self, pts: int, pcm: Pcm48, arrived: float | None) -> None:
        """Take a decoded packet (N,) of the microphone; it came at the monotonic time `arrived`."""
        if self.intake is not None:
            self._feed(self.intake.push(pts, pcm, time.monotonic(), arrived))

    async def fill(self) -> None:
        """What is due: sound that had to wait, silence while no microphone is heard; for ever."""
        while self.intake is not None:
            self.tick()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """Feed what is due by now."""
        if self.intake is not None:
            self._feed(self.intake.tick(time.monotonic()))

    def overhear(self, take: Callable[[Pcm48], None]) -> Callable[[], None]:
        """Call `take` with the microphone's sound (N,) at 48 kHz, gaps filled; returns what ends it."""
        self._taps.append(take)
        return lambda: self._taps.remove(take) if take in self._taps else None

    def interrupt(self) -> tuple[str | None, float]:
        """Cut off what is being said, everywhere; returns the utterance and its ms that were played."""
        self._stream.interrupt(self.place)
        self._playout.interrupt()
        self._wake()
        self._broadcast.wake()
        return self._speech.interrupt()

    def _feed(self, pcm: Pcm48) -> None:
        """Feed the next samples (N,) of the microphone, and as many of the assistant."""
        if not len(pcm) or self.intake is None:
            return
        for take in list(self._taps):
            take(pcm)
        mixed, arrived = self._mix(pcm), self.intake.arrived
        now = time.monotonic()
        if arrived is not None:
            self._figures.legs.add("mic", now - arrived)
        self._add(mixed, arrived, now)
        if self.voice != "microphone":
            self._hurry(now)
        self._wake()
        self._broadcast.wake()

    def _add(self, pcm: Pcm48, arrived: float | None, now: float) -> None:
        self._playout.hear(pcm, now)
        self._stream.push(Chunk(pcm, self.place, arrived, now))
        self.place += len(pcm)

    def _hurry(self, now: float) -> None:
        """Speech that is there ahead of time does not wait for the silence before it to leave.

        What it takes to draw its first picture is fed at once, and as much silence is left out.
        """
        begins = self._speech.begins(self.place)
        left_out = self._playout.leap(begins, self._speech.at_hand - KEPT, now)
        if left_out:
            self._stream.skip(self._playout.next_place)
        for _ in range(left_out // PACKET_SAMPLES):
            self._add(self._speech.take(PACKET_SAMPLES, self.place), None, now)

    def _mix(self, pcm: Pcm48) -> Pcm48:
        if self.voice == "microphone":
            return pcm
        said = self._speech.take(len(pcm), self.place)
        if self.voice == "assistant":
            return said
        both = pcm.astype(np.int32) + said
        return np.asarray(np.clip(both, -32768, 32767), dtype=np.int16)
