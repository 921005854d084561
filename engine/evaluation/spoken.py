"""The sentences that lips are measured on: unseen synthetic voices, and recorded English."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.audio.sound_file import read_audio
from engine.evaluation.alignment import Aligner, read_transcripts
from engine.evaluation.lip_figures import Said
from engine.loaders.packages import fetch
from engine.training.speech.espeak import Espeak
from engine.training.speech.neural_voices import Kokoro

# Speakers the networks were never trained on: Kokoro's Romance-language and Hindi speakers, made to
# speak English (training used its English and Mandarin ones), and untrained espeak-ng variants.
UNSEEN_KOKORO = ("ff_siwis", "if_sara", "pm_alex", "hm_omega")
UNSEEN_ESPEAK = ("en-us+f1", "en-us+m2")


def unseen_voices(texts: Sequence[str], cache: Path, espeak: Espeak) -> list[Said]:
    """One text by each unseen voice, texts in turn."""
    files = {path.stem: path for path in fetch("kokoro-voices", cache)}
    kokoro = Kokoro(fetch("kokoro", cache)[0], list(files.values()), espeak)
    said = []
    for i, name in enumerate((*UNSEEN_KOKORO, *UNSEEN_ESPEAK)):
        text = texts[i % len(texts)]
        spoken = kokoro.speak(files[name], text) if name in files else espeak.speak(name, text)
        said.append(Said(name, *spoken))
    return said


def recorded(folder: Path, espeak: Espeak) -> list[Said]:
    """The recordings of an LJSpeech folder, aligned."""
    aligner = Aligner(espeak.ipa)
    said = []
    for name, text in read_transcripts(folder).items():
        pcm = read_audio(folder / f"{name}.flac")
        said.append(Said(name, pcm, aligner.align(pcm, text)))
    return said
