"""The assistant's voice: utterances that come faster than they are spoken, each with an id.

Everything in a `SpeechInput` is on the event loop and computes next to nothing. Positions are
counted in the utterance's own sound, in ms or in samples at 48 kHz.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from server.live.clips import Spoken
from server.live.events import EventHub
from server.sound.intake import SOUND_RATE_HZ, Pcm48
from server.sound.sound_format import Decoder, SoundFormat, SpeechRefused

LIMIT_S = 60.0  # of speech that may wait
TOLD_EVERY_S = 0.25  # of speech played between two `buffer` events
PAST = 10  # spans, 20 ms each, in which a picture is looked for that leaves after its sound
MAX_ID = 100  # characters
MOST_UTTERANCES, MOST_WORDS = 256, 10_000  # that may wait; of one utterance
_MS = SOUND_RATE_HZ // 1000


class Word(NamedTuple):
    """A word of an utterance, for captions; times in ms from the utterance's begin."""

    text: str
    start_ms: float
    end_ms: float


class Utterance:
    """One piece of speech on its way through a `SpeechInput`, which makes it: `begin`."""

    def __init__(self, queue: SpeechInput, id: str, sound: SoundFormat) -> None:
        self.id = id
        self.ended = False  # nothing more is pushed
        self.over = False  # spoken to its end, or cut off
        self.pushed = 0  # samples, all at 48 kHz
        self.taken = 0
        self.played = 0
        self.started = False
        self.words: deque[Word] = deque()
        self._queue = queue
        self._decoder = Decoder(sound)
        self._pcm: deque[Pcm48] = deque()

    def push(self, data: bytes) -> None:
        """Add sound, of any length.

        Raises:
            SpeechRefused: speech_full (nothing of `data` is kept; send it again later) or
                utterance_over (it was ended or interrupted).
        """
        if self.ended or self.over:
            raise SpeechRefused("utterance_over", f"utterance {self.id!r} is over")
        self._queue.check_room(self._decoder.seconds(data))
        self._add(self._decoder.push(data))

    def align(self, words: Iterable[Word]) -> None:
        """Say when which word is spoken; they come out as `caption` events in time.

        Raises:
            SpeechRefused: speech_full: too many wait; none of these is kept.
        """
        more = list(words)
        if len(self.words) + len(more) > MOST_WORDS:
            raise SpeechRefused("speech_full", f"{len(self.words)} words wait to be shown already")
        self.words.extend(more)

    def end(self) -> None:
        """Nothing more comes; what was pushed is spoken to its end. May be called again."""
        if not self.ended and not self.over:
            self._add(self._decoder.end())
        self.ended = True
        self._queue.changed()

    @property
    def waiting(self) -> int:
        """Samples not yet taken."""
        return self.pushed - self.taken

    def take(self, count: int) -> Pcm48:
        """Take at most `count` samples (N,)."""
        parts: list[Pcm48] = []
        while count and self._pcm:
            first = self._pcm.popleft()
            parts.append(first[:count])
            if len(first) > count:
                self._pcm.appendleft(first[count:])
            count -= len(parts[-1])
        taken = np.concatenate(parts) if parts else np.zeros(0, np.int16)
        self.taken += len(taken)
        return taken

    def _add(self, pcm: Pcm48) -> None:
        if len(pcm):
            self._pcm.append(pcm)
            self.pushed += len(pcm)
            self._queue.changed()


class _Span(NamedTuple):
    """Where on the line of sound a part of an utterance is."""

    begin: int
    end: int
    utterance: Utterance
    offset: int  # of `begin`, in the utterance


class SpeechInput:
    """The queue of utterances of one session.

    Bound: 60 s of speech in 256 utterances. Overflow: what is pushed is refused whole, and its sender is told.
    """

    def __init__(self, events: EventHub, wake: Callable[[], None] = lambda: None) -> None:
        self._events = events
        self._wake = wake
        self._queue: deque[Utterance] = deque()  # the first is being taken
        self._spans: deque[_Span] = deque()  # taken, not yet played
        self._past: deque[_Span] = deque(maxlen=PAST)  # the last ones that were: of late pictures
        self._told = 0

    def begin(self, id: str | None = None, sound: SoundFormat | None = None) -> Utterance:
        """Begin a new utterance; it is spoken after those before it.

        Raises:
            SpeechRefused: bad_utterance: the id is too long, or still in use; speech_full: too
                many wait.
        """
        if len(self._queue) >= MOST_UTTERANCES:
            said = f"{len(self._queue)} utterances wait; begin the next when there is room"
            raise SpeechRefused("speech_full", said)
        name = id or f"u-{secrets.token_urlsafe(6)}"
        if len(name) > MAX_ID or any(u.id == name for u in self._known()):
            said = f"utterance id {name[:MAX_ID]!r} is in use, or longer than {MAX_ID} characters"
            raise SpeechRefused("bad_utterance", said)
        utterance = Utterance(self, name, sound or SoundFormat())
        self._queue.append(utterance)
        return utterance

    @property
    def buffered_s(self) -> float:
        """Seconds of speech that wait."""
        return sum(u.waiting for u in self._queue) / SOUND_RATE_HZ

    @property
    def at_hand(self) -> int:
        """Samples that wait of the utterance that is taken next."""
        for utterance in self._queue:
            if utterance.waiting or not utterance.ended:
                return utterance.waiting
        return 0

    def begins(self, place: int) -> int:
        """Where on the line the speech begins that is heard next; `place` is where more would be taken."""
        return self._spans[0].begin if self._spans else place

    @property
    def busy(self) -> bool:
        """Whether something is being spoken or waits to be."""
        return bool(self._spans) or any(u.waiting for u in self._queue)

    def check_room(self, seconds: float) -> None:
        """Raise `SpeechRefused` speech_full when more than 60 s would wait."""
        if self.buffered_s + seconds > LIMIT_S:
            said = (
                f"{self.buffered_s:.1f} s of speech wait, {seconds:.1f} s more do not fit into"
                f" {LIMIT_S:g} s; send less, or when there is room"
            )
            raise SpeechRefused("speech_full", said)

    def changed(self) -> None:
        """Something came in."""
        self._wake()

    def take(self, count: int, place: int) -> Pcm48:
        """Take what is spoken on the line of sound from `place` on.

        Returns:
            the samples (count,); silence where there is nothing.
        """
        out = np.zeros(count, dtype=np.int16)
        filled = 0
        while self._queue and filled < count:
            first = self._queue[0]
            offset = first.taken
            pcm = first.take(count - filled)
            out[filled : filled + len(pcm)] = pcm
            if len(pcm):
                begin = place + filled
                self._spans.append(_Span(begin, begin + len(pcm), first, offset))
                filled += len(pcm)
            if first.waiting:
                break
            if not first.ended:  # its sender is slower than it speaks
                break
            self._queue.popleft()
            if not any(span.utterance is first for span in self._spans):
                self._stop(first, interrupted=False)
        return out

    def spoken(self, begin: int, end: int) -> tuple[Spoken, ...]:
        """Which utterances are on the line of sound between two places, counted from the first."""
        return tuple(
            Spoken(span.utterance.id, max(span.begin, begin) - begin, min(span.end, end) - begin)
            for span in (*self._past, *self._spans)
            if span.begin < end and span.end > begin
        )

    def played(self, place: int) -> None:
        """Take note that the sound before `place` has left; tells what began and ended by it."""
        while self._spans and self._spans[0].begin < place:
            span = self._spans[0]
            utterance = span.utterance
            if not utterance.started:
                utterance.started = True
                self._events.emit("speaking_started", utterance=utterance.id, position_ms=0)
            utterance.played = span.offset + min(place, span.end) - span.begin
            self._caption(utterance)
            if span.end > place:
                break
            self._past.append(self._spans.popleft())
            done = utterance.ended and not utterance.waiting
            if done and utterance.played >= utterance.pushed:
                self._stop(utterance, interrupted=False)
        self._tell_buffer()

    def interrupt(self) -> tuple[str | None, float]:
        """Drop everything; returns who was cut off, and after how many ms of it were played."""
        known = self._known()
        current = next((u for u in known if u.started and not u.over), None)
        self._queue.clear()
        self._spans.clear()
        self._past.clear()
        for utterance in known:
            if utterance is current:
                self._stop(utterance, interrupted=True)
            utterance.over = True
        position = current.played / _MS if current else 0.0
        dropped = [u.id for u in known if u is not current]
        self._events.emit(
            "interrupted",
            utterance=current.id if current else None,
            position_ms=round(position, 1),
            dropped=dropped,
        )
        self._tell_buffer()
        return (current.id if current else None), position

    def _known(self) -> list[Utterance]:
        """Utterances that are not over, in order."""
        found = {id(u): u for u in (*(s.utterance for s in self._spans), *self._queue)}
        return list(found.values())

    def _stop(self, utterance: Utterance, *, interrupted: bool) -> None:
        utterance.over = True
        if utterance.started:
            self._events.emit(
                "speaking_stopped",
                utterance=utterance.id,
                position_ms=round(utterance.played / _MS, 1),
                interrupted=interrupted,
            )

    def _caption(self, utterance: Utterance) -> None:
        while utterance.words and utterance.words[0].start_ms * _MS < utterance.played:
            word = utterance.words.popleft()
            self._events.emit(
                "caption",
                utterance=utterance.id,
                text=word.text,
                start_ms=word.start_ms,
                end_ms=word.end_ms,
            )

    def _tell_buffer(self) -> None:
        waiting = sum(u.waiting for u in self._queue)
        moved = abs(waiting - self._told) >= TOLD_EVERY_S * SOUND_RATE_HZ
        if moved or (self._told and not waiting):
            self._told = waiting
            self._events.emit("buffer", buffered_ms=waiting // _MS)
