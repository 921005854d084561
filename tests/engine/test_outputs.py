"""Nothing that this project did not make is deleted or overwritten by a command that writes a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.outputs import MARKER, check_file, check_folder, own_folder

FOREIGN = ("000000.png", "run.json", "state.npz", "settings.json", "config.json", "log.jsonl")


def test_a_new_and_an_empty_folder_are_taken_and_marked(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a" / "b"):
        own_folder(folder)
        (folder / "result").touch()
        own_folder(folder)  # its own
        assert (folder / MARKER).exists()


def test_a_folder_of_an_earlier_version_is_taken(tmp_path: Path) -> None:
    (tmp_path / "speech.pt").touch()
    own_folder(tmp_path, earlier=True)
    own_folder(tmp_path)


def test_looking_writes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        own_folder(tmp_path / "file")
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        check_file(tmp_path, lambda path: True)
    with pytest.raises(ConfigError, match="file is a file; name a folder"):
        check_file(tmp_path / "file" / "below" / "a.mp4", lambda path: True)
    with pytest.raises(ConfigError, match="file was not made by portraittalk"):
        check_file(tmp_path / "file", lambda path: False)
    with pytest.raises(ConfigError, match="cannot be written"):
        own_folder(tmp_path / "file" / "below")


def call_main(module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


def prepare(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.data.prepare import PrepareSettings, prepare

    (other / "a.mp4").touch()
    tools: Any = SimpleNamespace(embed=SimpleNamespace(name="tiny"), landmarks="own")
    prepare(other, folder, tools, PrepareSettings())


def stage(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.portraittalk.run_folder import train_into
    from engine.training.portraittalk.stage_config import StageSettings

    trainer: Any = SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True))
    train_into(folder, trainer, StageSettings(), "codec", quiet=True)


def drawn_faces(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.data.faces import Drawing, generate

    drawing = Drawing(people=1, edits=1, seed=0)
    generate(folder, drawing, cache=other, landmarker=other / "none.task")


def drawn_clips(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.data.drawn_clips import write_drawn_clips

    write_drawn_clips(folder, people=1, frames=2, size=32)


def gathered_faces(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.face.dataset import gather

    gather(folder, other, None, None)


def face_nets(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    from engine.training.face.train import FaceTraining, face_trainer

    face_trainer(nn.Conv2d(1, 1, 1), lambda rng: {}, FaceTraining(steps=1, rate=0.1), folder)


def spoken_sentences(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.speech.data import generate

    generate(folder, "nobody", 1, cache=other)


def speech_encoder(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.speech.train import prepare

    prepare(other, other, other, folder)


def motion_net(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.motion.examples import MotionTraining
    from engine.training.motion.train import train

    train([], {}, MotionTraining(), folder, 1)


def painter(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.painter import train

    call_main(train, monkeypatch, "--data", str(other), "--run", str(folder), "--cache", str(other))


def long_video(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import long_video

    call_main(long_video, monkeypatch, "--out", str(folder), "--weights", str(other))


def exported_picture(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exports import picture

    call_main(picture, monkeypatch, "--checkpoint", str(other / "none"), "--out", str(folder))


def exported_speech(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exports.speech import main

    main(folder)


def exported_face(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exports.face import main

    main(folder)


WRITERS = (
    prepare,
    stage,
    drawn_faces,
    drawn_clips,
    gathered_faces,
    face_nets,
    spoken_sentences,
    speech_encoder,
    motion_net,
    painter,
    long_video,
    exported_picture,
    exported_speech,
    exported_face,
)


@pytest.mark.train
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_command_refuses_a_folder_of_somebody_else(
    write: Callable[[Path, Path, pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    for name in FOREIGN:
        (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match="portraittalk did not make; name a new"):
        write(folder, other, monkeypatch)
    assert {p.name: p.read_text() for p in folder.iterdir()} == dict.fromkeys(FOREIGN, "mine")
