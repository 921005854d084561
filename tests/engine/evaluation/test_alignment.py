"""Words, parts and pronunciations of the forced alignment; the aligner itself is tried on speech."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DataError
from engine.evaluation.alignment import (
    Aligner,
    Word,
    best_cut,
    read_transcripts,
    split_words,
)
from engine.training.speech.flite import Flite
from engine.training.speech.phones import BILABIAL, phones_from_ipa


def test_words_are_split_at_hyphens_and_lose_their_marks() -> None:
    assert split_words('the "forty-two line" Bible; man\'s') == [
        "the",
        "forty",
        "two",
        "line",
        "bible",
        "man's",
    ]


def test_ipa_becomes_phones_longest_sign_first() -> None:
    assert phones_from_ipa("wˈʊdkʌɾɚz") == ["W", "UH", "D", "K", "AH", "D", "ER", "Z"]
    assert phones_from_ipa("tʃaɪ, pˌiː") == ["CH", "AY", "P", "IY"]
    assert phones_from_ipa("...") == []


def test_a_recording_is_cut_at_a_pause_near_its_middle() -> None:
    words = [Word("a", 0.0, 1.0), Word("b", 1.3, 2.0), Word("c", 2.02, 3.0), Word("d", 3.0, 4.0)]
    assert best_cut(words, 4.0) == 1  # the long pause, not the middle
    even = [Word(c, i, i + 1.0) for i, c in enumerate("abcd")]
    assert best_cut(even, 4.0) == 2


def test_every_sound_of_a_folder_has_words(tmp_path: Path) -> None:
    for name in ("A-1", "LJ001-0009"):
        (tmp_path / f"{name}.flac").touch()
    (tmp_path / "metadata.csv").write_text("A-1|raw 2|raw two\nB-2|unused|unused\n")
    words = read_transcripts(tmp_path)
    assert words["A-1"] == "raw two"
    assert "movable types" in words["LJ001-0009"]
    (tmp_path / "C-3.flac").touch()
    with pytest.raises(DataError, match="C-3"):
        read_transcripts(tmp_path)


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata\.csv"):
        read_transcripts(tmp_path)


def test_phones_are_found_where_a_voice_says_they_are() -> None:
    """A synthetic voice knows its phone times; a word the dictionary lacks is aligned, too."""
    pytest.importorskip("pocketsphinx")
    if shutil.which("flite") is None:
        pytest.skip("no flite: a Debian package")
    text = "Pam bought a purple zibbuk for Bob."
    pcm, said = Flite().speak("slt", text)
    aligner = Aligner(lambda word: "zˈɪbək")
    found = aligner.align(pcm, text)
    assert aligner.added == {"zibbuk": "Z IH B AH K"}
    truth = [(p.start + p.end) / 2 for p in said if p.name in BILABIAL]
    heard = [(p.start + p.end) / 2 for p in found if p.name in BILABIAL]
    assert len(heard) == len(truth) == 8
    assert np.median(np.abs(np.array(heard) - np.array(truth))) < 0.04


def test_words_that_were_not_said_are_refused() -> None:
    pytest.importorskip("pocketsphinx")
    with pytest.raises(DataError, match="do not fit"):
        Aligner(lambda word: "").align(np.zeros(1600, np.float32), "one two three four five six")
