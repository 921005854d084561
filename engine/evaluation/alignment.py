"""When each phone is said in recorded speech whose words are known: forced alignment.

Words that the aligner's dictionary lacks are spelt by espeak-ng, so that none is left out. Long
recordings on which the aligner's second pass gives up are cut between words and aligned in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.audio.sound_file import RATE
from engine.errors import DataError
from engine.training.speech.phones import Phone, phones_from_ipa

F32 = NDArray[np.float32]
Spell = Callable[[str], str]  # a word -> its IPA
SHORTEST_S = 1.0  # a part shorter than this is not cut again
# Two clips of LJSpeech (public domain) whose words some copies of the list leave out.
LEFT_OUT = {
    "LJ001-0009": "Printing, then, for our purpose, may be considered as the art of making books "
    "by means of movable types.",
    "LJ001-0010": "Now, as all books not primarily intended as picture-books consist principally "
    "of types composed to form letterpress,",
}


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its time in seconds."""

    text: str
    start: float
    end: float


def split_words(text: str) -> list[str]:
    """`Fifty-five "lines"` -> fifty, five, lines."""
    return "".join(c if c.isalpha() or c == "'" else " " for c in text.lower()).split()


def read_transcripts(folder: Path) -> dict[str, str]:
    """Words of each `.flac` of an LJSpeech folder, by file name without suffix.

    Raises:
        DataError: a sound has no words, or the list is missing.
    """
    path = folder / "metadata.csv"
    if not path.is_file():
        raise DataError(f"no {path}; wants an LJSpeech folder")
    rows = [line.split("|") for line in path.read_text().splitlines() if "|" in line]
    known = LEFT_OUT | {name: words for name, *_, words in rows}
    names = sorted(p.stem for p in folder.glob("*.flac"))
    if missing := [name for name in names if name not in known]:
        raise DataError(f"{path} has no words for {', '.join(missing)}")
    return {name: known[name] for name in names}


class Aligner:
    """Pocketsphinx's forced alignment with an open vocabulary.

    Args:
        spell: gives the IPA of a word the dictionary lacks.
    """

    def __init__(self, spell: Spell) -> None:
        self._spell = spell
        self.added: dict[str, str] = {}  # words that were spelt, with their phones

    def align(self, pcm: F32, text: str) -> list[Phone]:
        """Phones of `pcm` (N,) at 16 kHz, silences left out, in order.

        Raises:
            DataError: the words do not fit the sound.
        """
        return self._align(pcm, split_words(text), 0.0)

    def _align(self, pcm: F32, words: Sequence[str], at: float) -> list[Phone]:
        decoder = self._decoder(words)
        try:
            _decode(decoder, pcm)
            found = [
                Word(s.word.split("(")[0], s.start_frame / 100, (s.end_frame + 1) / 100)
                for s in decoder.seg() or ()
                if s.word[0] not in "<["
            ]
        except RuntimeError as error:
            raise DataError(f"the words do not fit the sound at {at:.1f} s: {words}") from error
        if [w.text for w in found] != list(words):
            raise DataError(f"the words do not fit the sound at {at:.1f} s: {words}")
        try:
            decoder.set_alignment()
            _decode(decoder, pcm)
        except RuntimeError as error:
            if len(words) < 2 or len(pcm) < SHORTEST_S * RATE:
                raise DataError(f"no phones found at {at:.1f} s: {words}") from error
            return self._align_parts(pcm, found, at)
        return [
            Phone(p.name, at + p.start / 100, at + (p.start + p.duration) / 100)
            for word in decoder.get_alignment()
            for p in word
            if p.name not in ("SIL", "+NSN+", "+SPN+")
        ]

    def _align_parts(self, pcm: F32, found: Sequence[Word], at: float) -> list[Phone]:
        cut = best_cut(found, len(pcm) / RATE)
        seconds = (found[cut - 1].end + found[cut].start) / 2
        sample = int(seconds * RATE)
        words = [w.text for w in found]
        first = self._align(pcm[:sample], words[:cut], at)
        return first + self._align(pcm[sample:], words[cut:], at + sample / RATE)

    def _decoder(self, words: Sequence[str]) -> Any:
        from pocketsphinx import Decoder

        decoder = Decoder(samprate=RATE, lm=None, loglevel="FATAL")
        for word in sorted({w for w in words if not decoder.lookup_word(w)}):
            said = " ".join("UW" if p == "UE" else p for p in phones_from_ipa(self._spell(word)))
            if not said:
                raise DataError(f"no pronunciation for {word!r}")
            decoder.add_word(word, said, True)
            self.added[word] = said
        decoder.set_align_text(" ".join(words))
        return decoder


def best_cut(found: Sequence[Word], length: float) -> int:
    """Number of the word before which to cut: a long pause near the middle."""

    def worth(i: int) -> float:
        middle = (found[i - 1].end + found[i].start) / 2
        pause = found[i].start - found[i - 1].end
        return pause - 0.2 * abs(middle - length / 2)

    return max(range(1, len(found)), key=worth)


def _decode(decoder: Any, pcm: F32) -> None:
    raw = (np.clip(pcm, -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.start_utt()
    decoder.process_raw(raw, full_utt=True)
    decoder.end_utt()
