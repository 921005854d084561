"""A place that cannot be written is refused before any work; one that can is held until the end."""

from __future__ import annotations

import contextlib
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from engine import profiles
from engine.cli import app
from engine.config import LARGEST_SIDE, EngineConfig
from engine.errors import AvatarError, ConfigError, MediaError
from engine.offline.casting import Casting
from engine.offline.output import check_output, check_space, claim_output
from engine.offline.video_file import write_video
from engine.outputs import check_room, claimed
from engine.types import VideoFrame
from server.settings import BUNDLED_PORTRAIT
from tests.engine.audio.test_sound_file import tone, write_wav


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["a/b/out.mp4", "a/b/frames", "a/b/out.webm"])
def test_missing_folders_are_made_and_removed_when_nothing_comes_into_them(
    name: str, tmp_path: Path
) -> None:
    check_output(tmp_path / name)
    assert entries(tmp_path) == []
    with claim_output(tmp_path / name):
        assert (tmp_path / "a" / "b").is_dir()
    assert entries(tmp_path) == []
    with claim_output(tmp_path / name) as held:
        held.path.touch()
    assert entries(tmp_path) == ["a", "a/b", name]


def test_a_place_that_is_no_place_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    refused: dict[str, tuple[type[AvatarError], str]] = {
        "file/out.mp4": (ConfigError, "file is a file; name a folder"),
        "file/below/frames": (ConfigError, "file is a file; name a folder"),
        "file": (ConfigError, "file is a file; name a folder"),
        "folder.mp4": (ConfigError, "is a folder; name a file"),
        "out.avi": (MediaError, r"out\.avi: wanted a name ending in one of \.mp4"),
    }
    for name, (kind, words) in refused.items():
        with pytest.raises(kind, match=words):
            check_output(tmp_path / name)
    for name in ("out.mp4", "frames", "below/out.mov"):  # not even root writes there
        with pytest.raises(ConfigError, match="cannot be written"):
            check_output(Path("/proc") / name)
    with (
        pytest.raises(ConfigError, match="below cannot be made"),
        claimed(tmp_path / "file/below/a"),
    ):
        pytest.fail("it is held")
    assert entries(tmp_path) == ["file", "folder.mp4"]


@pytest.mark.parametrize("name", ["out.mp4", "frames"])
def test_two_runs_do_not_write_into_one_place(name: str, tmp_path: Path) -> None:
    (tmp_path / f".{name}.lock").touch()  # of a run that was killed: it holds nothing
    with claim_output(tmp_path / name):
        with (
            pytest.raises(ConfigError, match=f"another run is writing .*{name}"),
            claim_output(tmp_path / name),
        ):
            pytest.fail("two hold it")
        with claim_output(tmp_path / f"other-{name}"):
            pass
    with claim_output(tmp_path / name):
        pass
    assert entries(tmp_path) == []


def test_a_disk_without_the_room_is_said_with_both_figures(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path / "none", 1)
    with pytest.raises(ConfigError, match=r"none: about [\d.]+ .B are needed and [\d.]+ .B are"):
        check_room(tmp_path / "none", 2 * free)
    casting = Casting(portraits=[np.zeros((LARGEST_SIDE, LARGEST_SIDE, 3), np.uint8)])
    with claim_output(tmp_path / "frames") as held:
        check_space(held, casting, 512, 1.0, kept=False)
        a_frame = LARGEST_SIDE**2  # bytes; a PNG file of a photograph has more
        with pytest.raises(ConfigError, match="are needed"):
            check_space(held, casting, LARGEST_SIDE, free / a_frame / 25, kept=False)


@contextlib.contextmanager
def no_file_larger_than(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_becomes_full_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    wav, out = write_wav(tmp_path / "a.wav", tone(0.4)), tmp_path / "new" / "out.mp4"
    frames = (VideoFrame(index, noise + np.uint8(index)) for index in range(10))
    with (
        pytest.raises(ConfigError, match=r"out\.mp4 cannot be written: File too large"),
        no_file_larger_than(20_000),
        claimed(out),
    ):
        write_video(frames, (128, 128), wav, out, alpha=False)
    assert entries(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file/out.mp4", "is a file; name a folder"),
        ("out.gif", "wanted a name ending in"),
        ("held.mp4", "another run is writing"),
        ("foreign.mp4", "was not made by portraittalk"),
    ],
)
def test_generate_says_so_before_it_loads_an_engine(
    out: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "load_profile", lambda config: pytest.fail("it was loaded"))
    for name in ("file", "foreign.mp4"):
        (tmp_path / name).write_text("mine")
    wav = write_wav(tmp_path / "a.wav", tone(0.4))
    command = ["generate", "-p", str(BUNDLED_PORTRAIT), "-a", str(wav), "-o", str(tmp_path / out)]
    with claimed(tmp_path / "held.mp4"):
        result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, AvatarError)
    assert words in str(result.exception)


@pytest.mark.parametrize(("options", "side"), [([], LARGEST_SIDE), (["--max-side", "640"], 640)])
def test_generate_keeps_the_portraits_own_size_unless_told(
    options: list[str], side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[EngineConfig] = []

    def load(config: EngineConfig) -> None:
        loaded.append(config)
        raise ConfigError("enough")

    monkeypatch.setattr(profiles, "load_profile", load)
    wav, out = write_wav(tmp_path / "a.wav", tone(0.4)), tmp_path / "new" / "out.mp4"
    command = ["generate", "-p", str(BUNDLED_PORTRAIT), "-a", str(wav), "-o", str(out), *options]
    assert str(CliRunner().invoke(app, command).exception) == "enough"
    assert [config.max_side for config in loaded] == [side]
    assert entries(tmp_path) == ["a.wav"]
