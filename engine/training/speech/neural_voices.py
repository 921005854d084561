"""Piper and Kokoro, neural voices, with the phone durations that they decide on."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from engine.errors import DataError
from engine.training.speech.espeak import Espeak
from engine.training.speech.phones import Phone, from_ipa
from engine.training.speech.text import mandarin, pinyin_ipa, sentence
from engine.training.speech.voice import F32, to_rate


class Piper:
    """A small neural voice (one speaker, lively noise), with the durations it decided on."""

    def __init__(self, model: Path, espeak: Espeak, threads: int = 1) -> None:
        self._espeak = espeak
        self._session = _with_output(model, "/Ceil_output_0", threads)
        config = json.loads(model.with_suffix(".onnx.json").read_text())
        self._rate = int(config["audio"]["sample_rate"])
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence at random speed and liveliness: sound (N,) at 16 kHz, phones."""
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
        return to_rate(sound.reshape(-1), self._rate), _spread(owners, seconds, 0.0)


class Kokoro:
    """A good neural voice in many speakers; slow on a CPU."""

    LATE = 0.05  # seconds by which its labels trail its sound
    _SPELL = (  # espeak-ng's IPA -> its own symbols, in this order
        ("aɪ", "I"),
        ("eɪ", "A"),
        ("oʊ", "O"),
        ("əʊ", "Q"),
        ("aʊ", "W"),
        ("ɔɪ", "Y"),
        ("dʒ", "ʤ"),
        ("tʃ", "ʧ"),
        ("r", "ɹ"),
        ("ɚ", "əɹ"),
        ("ɝ", "ɜɹ"),
        ("ɐ", "ə"),
        ("ː", ""),
        ("ʲ", ""),
        ("ɬ", "l"),
        ("g", "ɡ"),
    )
    _VOCAB = {" ": 16} | {
        symbol: int(number)
        for symbol, _, number in (
            pair.partition("=")
            for pair in """
        ,=3 .=4 !=5 ?=6 A=24 I=25 O=31 Q=33 W=39 Y=41 ᵊ=42 a=43 b=44 d=46 e=47 f=48 h=50 i=51 j=52
        k=53 l=54 m=55 n=56 o=57 p=58 s=61 t=62 u=63 v=64 w=65 z=68 ɑ=69 ɒ=71 æ=72 ɔ=76 ð=81 ʤ=82
        ə=83 ɛ=86 ɜ=87 ɡ=92 ɪ=102 ŋ=112 θ=119 ɹ=123 ɾ=125 ʃ=131 ʧ=133 ʊ=135 ʌ=138 ʒ=147 ʔ=148 ˈ=156
        ˌ=157 ᵻ=177 ʦ=20 ʨ=21 ꭧ=23 x=66 y=67 ɕ=77 ɥ=99 ɨ=101 ɻ=126 ʂ=130 ɤ=140 ʰ=162 ↓=169 →=171
        ↗=172 ↘=173
            """.split()
        )
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
        """Speak one random sentence with a random speaker and speed; a quarter are Mandarin.

        Returns:
            sound (N,) at 16 kHz in [-1, 1], and its phones.
        """
        if rng.random() < 0.25:
            voice = rng.choice(self._mandarin)
            text = "".join(pinyin_ipa(s) for s in mandarin(rng))
        else:
            voice = rng.choice(self._voices)
            text = self._english(sentence(rng), british=voice.stem[0] == "b")
        return self._synthesise(voice, text, rng.uniform(0.85, 1.2))

    def speak(self, voice: Path, text: str, speed: float = 1.0) -> tuple[F32, list[Phone]]:
        """Speak English `text` with the speaker of file `voice`: sound (N,) at 16 kHz, its phones."""
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
        return to_rate(sound.reshape(-1), 24_000), _spread(["^", *symbols, "$"], seconds, self.LATE)


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
