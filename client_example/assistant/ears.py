"""What was said, in words, as far as that can be had without a download: pocketsphinx and its small model.

English only. Without it turns are heard, not words.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

NOISE = 33.0  # 60 dB below full scale, as in a quiet room: in the silence of a browser's filter it hears worse


class Ears(Protocol):
    """Turns sound into words."""

    def words(self, sound: bytes) -> str:
        """The words of PCM16 sound at 16 kHz; empty if none were understood. Blocks."""
        ...


class NoEars(Exception):
    """The extra that they need is not installed."""


class Pocketsphinx:
    """Listens for a few phrases, which it does fairly well; without phrases for any words, which it does badly.

    Raises:
        NoEars: pocketsphinx is not installed.
    """

    def __init__(self, phrases: Sequence[str] = ()) -> None:
        try:
            import pocketsphinx
        except ImportError:
            raise NoEars("to hear words: pip install pocketsphinx") from None
        self._lock = threading.Lock()
        self._noise = np.random.default_rng(0)
        language = {"lm": None} if phrases else {}
        self._decoder: Any = pocketsphinx.Decoder(
            samprate=16_000, cmn="batch", loglevel="FATAL", **language
        )
        if phrases:
            rule = " | ".join(phrases)
            self._decoder.add_jsgf_string(
                "turns", f"#JSGF V1.0; grammar g; public <turn> = {rule};"
            )
            self._decoder.activate_search("turns")

    def words(self, sound: bytes) -> str:
        """Understand one turn."""
        heard = np.frombuffer(sound, dtype="<i2") + self._noise.normal(0, NOISE, len(sound) // 2)
        sound = np.clip(heard, -32768, 32767).astype("<i2").tobytes()
        with self._lock:  # a turn that nobody waits for any more may still be worked on
            self._decoder.start_utt()
            self._decoder.process_raw(sound, no_search=False, full_utt=True)
            self._decoder.end_utt()
            found = self._decoder.hyp()
        return found.hypstr if found else ""
