"""Voices that no other network of the project was trained on, for the audio-lip expert alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from engine.loaders.packages import fetch
from engine.outputs import own_folder
from engine.training.speech.data import read_shard, write_shard
from engine.training.speech.espeak import Espeak
from engine.training.speech.neural_voices import Kokoro
from engine.training.speech.phones import Phone
from engine.training.speech.text import sentence
from engine.training.speech.voice import F32, RATE, Voice

# espeak-ng accents and speakers beside those of `Espeak.say` and of `engine.evaluation.spoken`.
ACCENTS = ("en-029", "en-us-nyc", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us")
SPEAKERS = """
    adam Alicia Andrea Andy Annie anika belinda benjamin david Denis edward Gene grandma
    Hugo Jacky john Lee linda m5 m8 Marco Mario max Michael miguel norbert pablo paul quincy
    rob sandro shelby steph travis victor zac
""".split()
# Kokoro's speakers of other languages, speaking English; four more are kept for `UNSEEN_KOKORO`.
FOREIGN = """
    ef_dora em_alex em_santa hf_alpha hf_beta hm_psi im_nicola jf_alpha jf_gongitsune
    jf_nezumi jf_tebukuro jm_kumo pf_dora pm_santa
""".split()


class OtherEspeak:
    """espeak-ng with the accents and speakers above."""

    def __init__(self, espeak: Espeak) -> None:
        self._espeak = espeak

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence: sound (N,) at 16 kHz in [-1, 1] and its phones."""
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(SPEAKERS)}"
        speed, pitch = rng.randint(130, 210), rng.randint(20, 80)
        return self._espeak.speak(voice, sentence(rng), speed, pitch)


class OtherKokoro:
    """Kokoro with the speakers above."""

    def __init__(self, kokoro: Kokoro, voices: Sequence[Path]) -> None:
        self._kokoro = kokoro
        self._voices = [path for path in sorted(voices) if path.stem in FOREIGN]

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence: sound (N,) at 16 kHz in [-1, 1] and its phones."""
        return self._kokoro.speak(rng.choice(self._voices), sentence(rng), rng.uniform(0.85, 1.2))


def speak(out: Path, cache: Path, minutes: dict[str, float], seed: int = 0) -> None:
    """Write files of 20 sentences until there are so many minutes of each voice; finished ones stay."""
    own_folder(out, earlier=any(out.glob("*_[0-9][0-9][0-9][0-9].npz")))
    espeak = Espeak()
    for name, wanted in minutes.items():
        voice: Voice = OtherEspeak(espeak)
        if name == "kokoro" and wanted:
            voices = fetch("kokoro-voices", cache)
            voice = OtherKokoro(Kokoro(fetch("kokoro", cache)[0], voices, espeak), voices)
        done, number = 0.0, 0
        with tqdm(total=wanted, desc=name, unit="min") as bar:
            while done < wanted:
                path = out / f"{name}_{number:04d}.npz"
                if path.exists():
                    seconds = sum(len(u.pcm) for u in read_shard(path)) / RATE
                else:
                    seconds = write_shard(path, voice, f"sync {seed} {path.stem}")
                done, number = done + seconds / 60, number + 1
                bar.update(round(seconds / 60, 2))
