"""Sets: manifests, the layouts of HDTF and MEAD, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import DataError
from engine.evaluation.sets import read_set


def folder(root: Path, *names: str, manifest: str = "") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read here")
    if manifest:
        (root / "set.toml").write_text(manifest)
    return root


def test_a_manifest_is_read(tmp_path: Path) -> None:
    text = """
name = "two"
licence = "CC BY 4.0"
[[clips]]
name = "anna"
real = "anna.mp4"
start_s = 2
seconds = 10.0
sound_late_s = -0.2
[[clips]]
name = "ben"
portrait = "ben.jpg"
audio = "ben.wav"
"""
    found = read_set(folder(tmp_path, "anna.mp4", "ben.jpg", "ben.wav", manifest=text))
    anna, ben = found.clips
    assert (found.name, found.licence) == ("two", "CC BY 4.0")
    assert (anna.real, anna.start_s, anna.seconds) == (tmp_path / "anna.mp4", 2, 10.0)
    assert (anna.sound_late_s, ben.sound_late_s) == (-0.2, 0.0)
    assert (ben.real, ben.portrait) == (None, tmp_path / "ben.jpg")


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ("", r"no \[\[clips\]\]"),
        ('[[clips]]\nname = "a"\nreal = "gone.mp4"', "no file .*gone.mp4"),
        ('[[clips]]\nname = "a"\nportrait = "p.jpg"', "needs `portrait` and `audio`"),
        ('[[clips]]\nname = "a"\nreel = "p.jpg"', "did you mean 'real'"),
        ('[[clips]]\nname = "a"\nreal = "p.jpg"\nseconds = "ten"', "is no number"),
        ('[[clips]]\nname = "a/b"\nreal = "p.jpg"', "a name is of letters"),
        ('[[clips]]\nname = "a"\nreal = "p.jpg"\nseconds = 0', "seconds more than 0"),
        ('[[clips]]\nname = "a"\nreal = "p.jpg"\nsound_late_s = 2', "at most 1 s either way"),
        (
            '[[clips]]\nname = "a"\nportrait = "p.jpg"\naudio = "p.jpg"\nsound_late_s = 0.1',
            "sound_late_s is of `real`",
        ),
        (2 * '[[clips]]\nname = "a"\nreal = "p.jpg"\n', "two clips are called a"),
        ("[[clips", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(tmp_path: Path, clips: str, said: str) -> None:
    text = 'name = "x"\nlicence = "y"\n' + clips
    with pytest.raises(DataError, match=said):
        read_set(folder(tmp_path, "p.jpg", manifest=text))


def test_a_manifest_says_its_licence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="licence"):
        read_set(folder(tmp_path, "p.jpg", manifest='name = "x"\n[[clips]]\nname = "a"'))


def test_hdtf_is_read_as_distributed(tmp_path: Path) -> None:
    names = [f"{kind}_{who}_000.mp4" for kind in ("RD", "WDA", "WRA") for who in "ABCDEFGH"]
    found = read_set(folder(tmp_path, *names))
    assert found.layout == "hdtf"
    assert 0 < len(found.clips) < len(names)  # the people kept for testing
    assert all(clip.real is not None and clip.portrait is None for clip in found.clips)


def test_mead_is_read_as_distributed(tmp_path: Path) -> None:
    names = [
        f"{who}/{part}"
        for who in ("M003", "M005", "W015")
        for part in (
            "video/front/angry/level_2/001.mp4",
            "video/left_30/angry/level_2/001.mp4",
            "audio/angry/level_2/001.m4a",
        )
    ]
    found = read_set(folder(tmp_path, *names))
    assert found.layout == "mead"
    assert [clip.real for clip in found.clips] == [
        tmp_path / who / "video/front/angry/level_2/001.mp4" for who in ("M003", "W015")
    ]
    assert found.clips[0].audio == tmp_path / "M003/audio/angry/level_2/001.m4a"
