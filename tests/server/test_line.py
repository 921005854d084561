"""The line of sound, from an utterance that is pushed to the sound and the pictures that leave.

All real but the time, which passes at once, and the engine, which takes so much of it for a picture.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from server.live import engine_stream, line
from server.live.broadcast import Broadcast
from server.live.events import EventHub
from server.live.figures import Figures
from server.live.line import SoundLine, Voice
from server.live.speech import SpeechInput
from server.metrics import Metrics
from server.sound.intake import Pcm48
from server.sound.sound_format import SoundFormat
from tests.server.fake_engine import FakeEngine
from tests.server.simulated import PACKET, Left, SimulatedEngine, tone

QUIET_MS = 1000
VOICE = np.concatenate([tone(i) for i in range(100)])  # 2 s


class Studio:
    """A session's line, looked at every millisecond."""

    def __init__(self, patch: pytest.MonkeyPatch, voice: Voice, draw_s: float = 0.02) -> None:
        self.way = SimulatedEngine(patch, lambda frame: draw_s)
        out, speech = self.way.line, SpeechInput(EventHub())
        self.speech = speech
        for module in (line, engine_stream):
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: out.now))
        config = FakeEngine().config.stream
        self.line = SoundLine(
            self.way.stream,
            out.playout,
            Broadcast(out.playout, shown=lambda picture, now: None, heard=speech.played),
            speech,
            Figures(Metrics(), config),
            voice=voice,
            wake=lambda: None,
        )
        self.line.begin()

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            if self.way.line.at_ms % 10 == 0:
                self.line.tick()
            self.way.line.every_ms()
            self.way.line.look()
            self.speech.played(self.way.line.playout.next_place)
            self.way.line.at_ms += 1

    def say(self, pcm: Pcm48, *, end: bool = True) -> None:
        utterance = self.speech.begin("u", SoundFormat(48_000))
        utterance.push(pcm.tobytes())
        if end:
            utterance.end()

    def heard(self) -> Pcm48:
        """What was not silence."""
        sound = np.concatenate(self.way.line.heard)
        loud = np.flatnonzero(sound)
        return sound[loud[0] : loud[-1] + 1]

    def first_sound(self) -> Left:
        """What of the voice left first."""
        return next(
            s for s, pcm in zip(self.way.line.sounds, self.way.line.heard, strict=True) if pcm.any()
        )

    def first_sound_ms(self) -> float:
        """When the voice left, after it was said."""
        return 1000 * self.first_sound().at - QUIET_MS


@pytest.mark.parametrize("voice", ["assistant", "both"])
def test_speech_at_hand_leaves_whole_and_in_step_without_waiting_for_the_look_ahead(
    monkeypatch: pytest.MonkeyPatch, voice: Voice
) -> None:
    studio = Studio(monkeypatch, voice)
    studio.run(QUIET_MS)
    studio.say(VOICE)
    drawn = len(studio.way.drawn)
    studio.run(3000)
    assert studio.first_sound_ms() <= 90
    np.testing.assert_array_equal(studio.heard(), VOICE)
    out = studio.way.line
    assert out.playout.replaced == 0
    assert np.diff([s.pts for s in out.sounds]).tolist() == [PACKET] * (len(out.sounds) - 1)
    gaps = [gap for gap, p in zip(out.gaps(), out.pictures, strict=False) if p.at > 1.0]
    assert np.percentile(np.abs(gaps), 95) <= 0.03
    places = [s.place for s in out.sounds if s.place is not None]
    [gap_at] = np.flatnonzero(np.diff(places) != PACKET)  # silence is left out once
    assert studio.way.drawn[drawn] * 1920 >= places[gap_at + 1]  # nothing that nobody would see


def test_speech_that_comes_no_faster_than_it_is_spoken_keeps_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studio = Studio(monkeypatch, "assistant")
    studio.run(QUIET_MS)
    studio.say(VOICE[: 5 * PACKET], end=False)
    studio.run(1000)
    assert 130 <= studio.first_sound_ms() <= 190
    np.testing.assert_array_equal(studio.heard(), VOICE[: 5 * PACKET])


def test_a_pause_between_utterances_that_follow_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studio = Studio(monkeypatch, "assistant")
    studio.run(QUIET_MS)
    pause = np.zeros(20 * PACKET, np.int16)
    whole = np.concatenate([VOICE[: 20 * PACKET], pause, VOICE])
    studio.say(whole)
    studio.run(4000)
    np.testing.assert_array_equal(studio.heard(), whole)
