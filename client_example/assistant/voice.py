"""A voice from Debian: espeak-ng's own library, which also says when each word is spoken."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import threading
from dataclasses import dataclass

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the sound comes to the callback, in the caller's thread
_RATE = 1  # espeak_PARAMETER: words a minute
_UTF8 = 1  # flag of espeak_Synth
_BY_CHARACTER = 1
_LIST_END, _WORD = 0, 1  # espeak_EVENT_TYPE


class NoVoice(Exception):
    """Nothing here can speak; the message says what to install."""


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, the first is 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written, with the punctuation that follows it; ms from the begin."""

    text: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """Speech as PCM16, and its words in time."""

    pcm: bytes
    rate_hz: int
    words: list[Word]

    @property
    def duration_ms(self) -> float:
        """How long it is."""
        return len(self.pcm) / 2 / self.rate_hz * 1000


class Espeak:
    """Speaks one sentence after the other, hundreds of times faster than real time.

    Raises:
        NoVoice: the library or the voice is not installed.
    """

    _lock = threading.Lock()  # the library is one for the process

    def __init__(self, name: str = "en-us", words_a_minute: int = 165) -> None:
        found = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(found)
        except OSError:
            raise NoVoice(
                "espeak-ng is not installed: `apt-get install espeak-ng` on Debian, "
                "`brew install espeak-ng` on a Mac"
            ) from None
        self._name, self._words_a_minute = name, words_a_minute
        with self._lock:
            self.rate_hz = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0))
            if self.rate_hz <= 0 or not self._choose():
                raise NoVoice(f"espeak-ng has no voice {name!r}; `espeak-ng --voices` lists them")

    def _choose(self) -> bool:
        """Make the library speak with this voice, whoever used it before; False: it has none."""
        found: int = self._library.espeak_SetVoiceByName(self._name.encode())
        self._library.espeak_SetParameter(_RATE, self._words_a_minute, 0)
        return found == 0

    def speak(self, text: str) -> Spoken:
        """Speak a text; blocks for a few ms."""
        sound = bytearray()
        marks: list[tuple[int, int]] = []  # character, ms

        def take(wave: ctypes._Pointer[ctypes.c_short], count: int, events: object) -> int:
            if wave and count > 0:
                sound.extend(ctypes.string_at(wave, 2 * count))
            at = 0
            while events[at].type != _LIST_END:  # type: ignore[index]
                if events[at].type == _WORD:  # type: ignore[index]
                    marks.append((events[at].text_position - 1, events[at].audio_position))  # type: ignore[index]
                at += 1
            return 0

        callback = _Callback(take)
        data = text.encode() + b"\0"
        with self._lock:
            self._choose()
            self._library.espeak_SetSynthCallback(callback)
            self._library.espeak_Synth(
                data, ctypes.c_size_t(len(data)), 0, _BY_CHARACTER, 0, _UTF8, None, None
            )
            self._library.espeak_Synchronize()
        duration = len(sound) / 2 / self.rate_hz * 1000
        return Spoken(bytes(sound), self.rate_hz, _words(text, marks, duration))


def _words(text: str, marks: list[tuple[int, int]], duration_ms: float) -> list[Word]:
    """The words as they are written, each from its first mark; a number has several, a dash none."""
    begun: list[tuple[int, int]] = []  # character, ms
    for written in re.finditer(r"\S+", text):
        inside = (ms for at, ms in marks if written.start() <= at < written.end())
        if (ms := next(inside, None)) is not None:
            begun.append((written.start(), ms))
    ends = [*begun[1:], (len(text), duration_ms)]
    return [
        Word(text[at:end].strip(), float(start), float(stop))
        for (at, start), (end, stop) in zip(begun, ends, strict=True)
    ]
