"""Synthetic voices that say when each phone begins and ends.

`espeak-ng` and `flite` come from Debian, Piper and Kokoro from the registries; see `sources.py`.
All return sound at 16 kHz and phones of one inventory. Nothing here is needed at run time.
"""

from __future__ import annotations

import ctypes
import json
import random
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from scipy.signal import resample_poly

from engine.errors import DataError
from engine.training.speech.phones import Phone, from_ipa
from engine.training.speech.text import mandarin, pinyin_ipa, sentence

F32 = NDArray[np.float32]
RATE = 16_000


class Voice(Protocol):
    """A text-to-speech engine."""

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence: sound (N,) at 16 kHz in [-1, 1] and its phones."""


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
        """Speak one random sentence with a random voice, speed and pitch."""
        voice = rng.choice(self.VOICES)
        voice += rng.choice(self.VARIANTS)
        speed, pitch = rng.randint(130, 200), rng.randint(25, 75)
        return self.speak(voice, sentence(rng), speed, pitch)

    def speak(
        self, voice: str, text: str, speed: int = 160, pitch: int = 50
    ) -> tuple[F32, list[Phone]]:
        """Speak `text`; speed in words a minute, pitch 0-99."""
        self._lib.espeak_SetVoiceByName(voice.encode())
        for parameter, value in ((1, speed), (3, pitch)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._sound, self._events = [], []
        said = text.encode()
        self._lib.espeak_Synth(said, len(said) + 1, 0, 1, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        sound = _to_rate(np.concatenate(self._sound), self._rate)
        ends = [t for t, _ in self._events[1:]] + [len(sound) / RATE]
        return sound, [
            Phone(from_ipa(text) or "sil", start, end)
            for (start, text), end in zip(self._events, ends, strict=True)
            if end > start
        ]


class Flite:
    """Small unit-selection and statistical voices of four recorded speakers."""

    VOICES = ("slt", "rms", "awb", "kal16", "slt", "rms")

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence with a random voice and speed."""
        voice, stretch = rng.choice(self.VOICES), rng.uniform(0.85, 1.25)
        return self.speak(voice, sentence(rng), stretch)

    def speak(self, voice: str, text: str, stretch: float = 1.0) -> tuple[F32, list[Phone]]:
        """Speak `text`; a larger stretch is slower."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "a.wav"
            command = ["flite", "-voice", voice, "-psdur", "--setf", f"duration_stretch={stretch}"]
            try:
                done = subprocess.run(
                    [*command, "-t", text, "-o", str(out)],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
            except (OSError, subprocess.CalledProcessError) as error:
                raise DataError("flite did not run: apt-get install flite") from error
            with wave.open(str(out)) as file:
                raw = np.frombuffer(file.readframes(file.getnframes()), np.int16)
                sound = _to_rate((raw / 32768).astype(np.float32), file.getframerate())
        return sound, _flite_phones(done.stdout)


def _flite_phones(said: str) -> list[Phone]:
    phones: list[Phone] = []
    start, offset = 0.0, 0.0
    for word in said.split():
        name, _, end = word.rpartition(":")
        stop = float(end) + offset
        if stop < start:  # a new utterance counts from zero
            offset, stop = start, float(end) + start
        upper = {"PAU": "sil", "AX": "AH", "H#": "sil"}.get(name.upper(), name.upper())
        phones.append(Phone(upper, start, stop))
        start = stop
    return phones


class Piper:
    """A small neural voice (one speaker, lively noise), with the durations it decided on."""

    def __init__(self, model: Path, espeak: Espeak, threads: int = 1) -> None:
        self._espeak = espeak
        self._session = _with_output(model, "/Ceil_output_0", threads)
        config = json.loads(model.with_suffix(".onnx.json").read_text())
        self._rate = int(config["audio"]["sample_rate"])
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence with random speed and liveliness."""
        symbols = ["^", *self._espeak.ipa(sentence(rng)), ".", "$"]
        symbols = [s for s in symbols if s in self._ids]
        ids = [i for s in symbols for i in (*self._ids[s], 0)]
        scales = [rng.uniform(0.4, 0.8), rng.uniform(0.85, 1.2), rng.uniform(0.6, 0.9)]
        sound, frames = self._session.run(
            None,
            {
                "input": np.array([ids], np.int64),
                "input_lengths": np.array([len(ids)], np.int64),
                "scales": np.array(scales, np.float32),
            },
        )
        seconds = np.cumsum(frames.reshape(-1)) * 256 / self._rate
        owners = [s for s in symbols for _ in (*self._ids[s], 0)]
        return _to_rate(sound.reshape(-1), self._rate), _spread(owners, seconds, 0.0)


class Kokoro:
    """A good neural voice in many speakers; slow on a CPU."""

    LATE = 0.05  # seconds by which its labels trail its sound
    _SPELL = (
        *(("aɪ", "I"), ("eɪ", "A"), ("oʊ", "O"), ("əʊ", "Q"), ("aʊ", "W"), ("ɔɪ", "Y")),
        *(("dʒ", "ʤ"), ("tʃ", "ʧ"), ("r", "ɹ"), ("ɚ", "əɹ"), ("ɝ", "ɜɹ"), ("ɐ", "ə")),
        *(("ː", ""), ("ʲ", ""), ("ɬ", "l"), ("g", "ɡ")),
    )
    _VOCAB = {
        **{",": 3, ".": 4, "!": 5, "?": 6, " ": 16, "A": 24, "I": 25, "O": 31, "Q": 33, "W": 39},
        **{"Y": 41, "ᵊ": 42, "a": 43, "b": 44, "d": 46, "e": 47, "f": 48, "h": 50, "i": 51},
        **{"j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "o": 57, "p": 58, "s": 61, "t": 62},
        **{"u": 63, "v": 64, "w": 65, "z": 68, "ɑ": 69, "ɒ": 71, "æ": 72, "ɔ": 76, "ð": 81},
        **{"ʤ": 82, "ə": 83, "ɛ": 86, "ɜ": 87, "ɡ": 92, "ɪ": 102, "ŋ": 112, "θ": 119, "ɹ": 123},
        **{"ɾ": 125, "ʃ": 131, "ʧ": 133, "ʊ": 135, "ʌ": 138, "ʒ": 147, "ʔ": 148, "ˈ": 156},
        **{"ˌ": 157, "ᵻ": 177, "ʦ": 20, "ʨ": 21, "ꭧ": 23, "x": 66, "y": 67, "ɕ": 77, "ɥ": 99},
        **{
            "ɨ": 101,
            "ɻ": 126,
            "ʂ": 130,
            "ɤ": 140,
            "ʰ": 162,
            "↓": 169,
            "→": 171,
            "↗": 172,
            "↘": 173,
        },
    }

    def __init__(
        self, model: Path, voices: Sequence[Path], espeak: Espeak, threads: int = 1
    ) -> None:
        self._espeak = espeak
        self._session = _with_output(model, "/encoder/Clip_output_0", threads)
        self._voices = [v for v in sorted(voices) if v.stem[0] in "ab"]
        self._mandarin = [v for v in sorted(voices) if v.stem[0] == "z"]
        if not self._voices or not self._mandarin:
            raise DataError("Kokoro's English and Mandarin voices (a*, b*, z*.bin) are missing")

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence, a quarter of them Mandarin, with a random speaker and speed."""
        if rng.random() < 0.25:
            voice = rng.choice(self._mandarin)
            text = "".join(pinyin_ipa(s) for s in mandarin(rng))
        else:
            voice = rng.choice(self._voices)
            text = self._english(sentence(rng), british=voice.stem[0] == "b")
        return self._synthesise(voice, text, rng.uniform(0.85, 1.2))

    def speak(self, voice: Path, text: str, speed: float = 1.0) -> tuple[F32, list[Phone]]:
        """Speak English `text` with the speaker of file `voice`."""
        return self._synthesise(voice, self._english(text), speed)

    def _english(self, text: str, *, british: bool = False) -> str:
        said = self._espeak.ipa(text, "en-gb-x-rp" if british else "en-us") + "."
        for old, new in self._SPELL:
            said = said.replace(old, new)
        return said

    def _synthesise(self, voice: Path, text: str, speed: float) -> tuple[F32, list[Phone]]:
        symbols = [s for s in text if s in self._VOCAB][:500]
        styles = np.fromfile(voice, np.float32).reshape(-1, 1, 256)
        sound, frames = self._session.run(
            None,
            {
                "input_ids": np.array([[0, *(self._VOCAB[s] for s in symbols), 0]], np.int64),
                "style": styles[len(symbols)],
                "speed": np.array([speed], np.float32),
            },
        )
        seconds = np.cumsum(frames.reshape(-1)) * 0.025
        return _to_rate(sound.reshape(-1), 24_000), _spread(
            ["^", *symbols, "$"], seconds, self.LATE
        )


def _with_output(model: Path, name: str, threads: int) -> ort.InferenceSession:
    """Open `model` with its inner tensor `name` (the phone lengths) as a second output."""
    graph = onnx.load(str(model))
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(graph.SerializeToString(), options, ["CPUExecutionProvider"])


def _spread(symbols: Sequence[str], ends: NDArray[Any], late: float) -> list[Phone]:
    """Symbols and their end times (s) -> phones; marks without a sound lengthen the last phone."""
    phones: list[Phone] = []
    start = 0.0
    for symbol, end in zip(symbols, ends, strict=True):
        name = "sil" if symbol in "^$,.!?; " else from_ipa(symbol)
        lengthens = name is None or (symbol == " " and end - start < 0.12)
        same = phones and (lengthens or phones[-1].name == name)
        if same and phones[-1].name != "sil" or (same and name in (None, "sil")):
            phones[-1] = Phone(phones[-1].name, phones[-1].start, float(end) - late)
        else:
            phones.append(Phone(name or "sil", start - late, float(end) - late))
        start = float(end)
    return _join_diphthongs(phones)


def _join_diphthongs(phones: list[Phone]) -> list[Phone]:
    """Piper spells aɪ as two symbols; make one phone of them."""
    glides = {("AA", "IH"): "AY", ("AA", "UH"): "AW", ("EH", "IH"): "EY", ("OW", "UH"): "OW"}
    glides |= {("AO", "IH"): "OY", ("T", "SH"): "CH", ("D", "ZH"): "JH"}
    out: list[Phone] = []
    for phone in phones:
        if out and (pair := (out[-1].name, phone.name)) in glides:
            out[-1] = Phone(glides[pair], out[-1].start, phone.end)
        else:
            out.append(phone)
    return out


def _to_rate(sound: F32, rate: int) -> F32:
    if rate == RATE:
        return sound.astype(np.float32)
    common = np.gcd(rate, RATE)
    return np.asarray(resample_poly(sound, RATE // common, rate // common), np.float32)
