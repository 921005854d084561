"""espeak-ng through its C library: a formant synthesiser, and the spelling of words in IPA."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.training.speech.phones import Phone, from_ipa
from engine.training.speech.text import sentence
from engine.training.speech.voice import F32, RATE, to_rate


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_PHONEME, _RETRIEVAL, _OPTIONS, _UTF8, _IPA_MODE = 7, 1, 3, 1, 2


class Espeak:
    """The formant synthesiser, and the grapheme-to-phoneme of the neural voices."""

    VOICES = ("en-us", "en-us", "en-us", "en-gb-x-rp", "en-gb-scotland")
    VARIANTS = ("", "+f2", "+f3", "+f4", "+f5", "+m1", "+m3", "+m4", "+m6", "+m7")

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise DataError("espeak-ng is missing: apt-get install espeak-ng") from error
        self._rate = self._lib.espeak_Initialize(_RETRIEVAL, 0, None, _OPTIONS)
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._sound: list[F32] = []
        self._events: list[tuple[float, str]] = []
        self._keep = _CALLBACK(self._receive)
        self._lib.espeak_SetSynthCallback(self._keep)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._sound.append(
                (np.ctypeslib.as_array(samples, (count,)) / 32768).astype(np.float32)
            )
        i = 0
        while events[i].type:
            if events[i].type == _PHONEME:
                text = bytes(events[i].string).decode("utf8", "ignore")
                self._events.append((events[i].audio_position / 1000, text))
            i += 1
        return 0

    def ipa(self, text: str, voice: str = "en-us") -> str:
        """Phonetic spelling of `text`, clauses joined by commas."""
        self._lib.espeak_SetVoiceByName(voice.encode())
        pointer = ctypes.c_char_p(text.encode())
        clauses = []
        while pointer.value is not None:
            said = self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, _IPA_MODE)
            clauses.append(said.decode().strip())
        return ", ".join(c for c in clauses if c)

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence with a random voice, speed and pitch: sound (N,), phones."""
        voice = rng.choice(self.VOICES)
        voice += rng.choice(self.VARIANTS)
        speed, pitch = rng.randint(130, 200), rng.randint(25, 75)
        return self.speak(voice, sentence(rng), speed, pitch)

    def speak(
        self, voice: str, text: str, speed: int = 160, pitch: int = 50
    ) -> tuple[F32, list[Phone]]:
        """Speak `text`: sound (N,) at 16 kHz in [-1, 1] and its phones.

        Args:
            speed: words a minute.
            pitch: 0 to 99.
        """
        self._lib.espeak_SetVoiceByName(voice.encode())
        for parameter, value in ((1, speed), (3, pitch)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._sound, self._events = [], []
        said = text.encode()
        self._lib.espeak_Synth(said, len(said) + 1, 0, 1, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        sound = to_rate(np.concatenate(self._sound), self._rate)
        ends = [t for t, _ in self._events[1:]] + [len(sound) / RATE]
        return sound, [
            Phone(from_ipa(text) or "sil", start, end)
            for (start, text), end in zip(self._events, ends, strict=True)
            if end > start
        ]
