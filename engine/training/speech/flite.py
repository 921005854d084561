"""flite through its command: small voices of four recorded speakers."""

from __future__ import annotations

import random
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from engine.errors import DataError
from engine.training.speech.phones import Phone
from engine.training.speech.text import sentence
from engine.training.speech.voice import F32, to_rate


class Flite:
    """Small unit-selection and statistical voices of four recorded speakers."""

    VOICES = ("slt", "rms", "awb", "kal16", "slt", "rms")

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence with a random voice and speed: sound (N,), its phones."""
        voice, stretch = rng.choice(self.VOICES), rng.uniform(0.85, 1.25)
        return self.speak(voice, sentence(rng), stretch)

    def speak(self, voice: str, text: str, stretch: float = 1.0) -> tuple[F32, list[Phone]]:
        """Speak `text`: sound (N,) at 16 kHz in [-1, 1] and its phones; a larger stretch is slower.

        Raises:
            DataError: flite is missing or fails.
        """
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
                sound = to_rate((raw / 32768).astype(np.float32), file.getframerate())
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
