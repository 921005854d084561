import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.avatar import AvatarEngine
from engine.config import EngineConfig
from engine.errors import ConfigError, MediaError, PromptRefused
from engine.face.image_file import decode_image
from engine.motion.expression import Prompt
from engine.offline.casting import Casting
from engine.offline.mark import MARK
from engine.offline.motion_file import motion
from engine.offline.video import frames_of, generate
from engine.offline.video_format import SUFFIXES
from engine.outputs import MARKER
from server.settings import BUNDLED_PORTRAIT
from tests.engine.audio.test_sound_file import write_wav


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return decode_image(BUNDLED_PORTRAIT.read_bytes())


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=44_100, layout="mono")
        t = np.arange(44_100 * 3 // 2) / 44_100
        pcm = (8000 * np.sin(2 * np.pi * 220 * t)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_video_has_all_frames_and_the_sound(
    engine: AvatarEngine, portrait: np.ndarray, tone: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out.mp4"
    report = generate(
        engine,
        Casting(portraits=[portrait]),
        tone,
        out,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert report.frames == 38  # 1.5 s at 25 fps, the last one half filled
    assert seen[0] == (1, 38)
    assert seen[-1] == (38, 38)
    with av.open(str(out)) as container:
        pictures = list(container.decode(video=0))
        assert len(pictures) == 38
        assert (pictures[0].width, pictures[0].height) == (512, 512)
        assert container.metadata["comment"] == MARK
    with av.open(str(out)) as container:
        samples = sum(f.samples for f in container.decode(audio=0))
        assert samples / 48_000 == pytest.approx(1.5, abs=0.06)
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_a_wrong_name_is_refused_before_any_work(
    engine: AvatarEngine, portrait: np.ndarray, tone: Path, tmp_path: Path
) -> None:
    with pytest.raises(MediaError, match=r"\.mp4"):
        generate(engine, Casting(portraits=[portrait]), tone, tmp_path / "out.txt")


def test_nothing_is_left_behind_when_drawing_fails(
    engine: AvatarEngine, portrait: np.ndarray, tone: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        generate(engine, Casting(portraits=[portrait]), tone, out, progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tone.wav"]


def test_a_prompt_is_shown_from_the_first_frame_on(
    engine: AvatarEngine, portrait: np.ndarray
) -> None:
    identity, pcm = engine.enroll(portrait), np.zeros(3 * 640, np.float32)
    plain, smiling = (
        np.stack([f.rgb for f in frames_of(engine, identity, pcm, 1, prompt)]).astype(int)
        for prompt in ("", "smile")
    )
    assert (np.abs(plain - smiling).max((1, 2, 3)) > 20).all()


def test_a_prompt_that_cannot_be_shown_is_refused_before_any_work(
    engine: AvatarEngine, portrait: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(PromptRefused, match="pencil sketch"):
        generate(
            engine,
            Casting(portraits=[portrait], prompt="pencil sketch"),
            tmp_path / "missing.wav",
            tmp_path / "out.mp4",
        )


def pictures(folder: Path) -> list[bytes]:
    """What the files show; no two signatures of them are the same."""
    return [np.asarray(Image.open(path)).tobytes() for path in sorted(folder.iterdir())]


def test_a_stopped_run_goes_on_and_makes_the_very_same_frames(
    engine: AvatarEngine, portrait: np.ndarray, tone: Path, tmp_path: Path
) -> None:
    casting = Casting(portraits=[portrait], prompt="smile", seed=4)
    generate(engine, casting, tone, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(engine, casting, tone, tmp_path / "cut", save_every_s=0, progress=stop)
    seen: list[int] = []
    report = generate(
        *(engine, casting, tone, tmp_path / "cut"),
        progress=lambda done, total: seen.append(done),
    )
    assert report.resumed_at == 17
    assert seen == list(range(17, 39))
    assert len(pictures(tmp_path / "cut")) == 38
    assert pictures(tmp_path / "cut") == pictures(tmp_path / "whole")
    with Image.open(min((tmp_path / "cut").iterdir())) as first:
        assert first.info["Comment"] == MARK


def test_frames_of_another_run_are_not_used(
    engine: AvatarEngine, portrait: np.ndarray, tone: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "out.mp4"
    for seed, resumed in ((1, 0), (1, 3), (2, 0)):
        seen: list[int] = []

        def progress(done: int, total: int, seen: list[int] = seen) -> None:
            seen.append(done)
            stop(done, total)

        casting = Casting(portraits=[portrait], seed=seed)
        with pytest.raises(KeyboardInterrupt):
            generate(engine, casting, tone, out, resumable=True, save_every_s=0, progress=progress)
        assert seen[0] == resumed
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.frames", "tone.wav"]


def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(
    engine: AvatarEngine, portrait: np.ndarray, tone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    Image.fromarray(portrait).save(folder / "000000.png")
    for name in ("run.json", "state.npz"):
        (folder / name).write_text('{"key": "mine"}')
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ConfigError, match=r"holiday holds .* portraittalk did not make"):
        generate(engine, Casting(portraits=[portrait]), tone, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_frames_of_ours_make_room_and_what_lies_beside_them_stays(
    engine: AvatarEngine, portrait: np.ndarray, tmp_path: Path
) -> None:
    folder, casting = tmp_path / "frames", Casting(portraits=[portrait])
    generate(engine, casting, write_wav(tmp_path / "a.wav", np.zeros(3 * 640)), folder)
    assert len(pictures(folder)) == 3
    (folder / "notes.txt").write_text("mine")
    generate(engine, casting, write_wav(tmp_path / "a.wav", np.zeros(2 * 640)), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["000000.png", "000001.png", "notes.txt"]
    Image.fromarray(portrait).save(folder / "000900.png")
    with pytest.raises(ConfigError, match=r"holds 000900\.png, which portraittalk did not make"):
        generate(engine, casting, tmp_path / "a.wav", folder)
    assert len(list(folder.iterdir())) == 4


def stop_at(frame: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        if done == frame:
            raise KeyboardInterrupt

    return stop


def test_a_run_that_an_earlier_version_began_goes_on(
    engine: AvatarEngine, portrait: np.ndarray, tmp_path: Path
) -> None:
    casting, out = Casting(portraits=[portrait]), tmp_path / "cut"
    wav = write_wav(tmp_path / "a.wav", np.zeros(4 * 640))
    with pytest.raises(KeyboardInterrupt):
        generate(engine, casting, wav, out, save_every_s=0, progress=stop_at(2))
    (out / MARKER).unlink()
    assert generate(engine, casting, wav, out).resumed_at == 2


def test_weights_that_were_trained_on_in_place_begin_a_new_video(
    portrait: np.ndarray, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "a.wav", np.zeros(4 * 640))
    config, out = EngineConfig(weights=tmp_path / "weights"), tmp_path / "cut"
    shutil.copytree(EngineConfig().weights, config.weights)
    casting = Casting(portraits=[portrait])
    with pytest.raises(KeyboardInterrupt):
        generate(AvatarEngine.load(config), casting, wav, out, save_every_s=0, progress=stop_at(2))
    basis = config.weights / "basis.npz"
    kept, when = dict(np.load(basis)), basis.stat()
    np.savez(basis, **{name: array * 1.01 for name, array in kept.items()})
    os.utime(basis, ns=(when.st_atime_ns, when.st_mtime_ns))
    assert generate(AvatarEngine.load(config), casting, wav, out).resumed_at == 0


def test_a_file_of_somebody_else_is_no_place_for_a_video(
    engine: AvatarEngine, portrait: np.ndarray, tone: Path, tmp_path: Path
) -> None:
    out, casting = tmp_path / "out.mp4", Casting(portraits=[portrait])
    out.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"out\.mp4 was not made by portraittalk"):
        generate(engine, casting, tone, out)
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_video_of_ours_is_made_again_in_its_place(
    engine: AvatarEngine, portrait: np.ndarray, suffix: str, tmp_path: Path
) -> None:
    wav, out = write_wav(tmp_path / "a.wav", np.zeros(2 * 640)), tmp_path / f"out{suffix}"
    for _ in range(2):
        assert generate(engine, Casting(portraits=[portrait]), wav, out).frames == 2


def test_what_somebody_put_beside_the_frames_of_a_video_is_kept(
    engine: AvatarEngine, portrait: np.ndarray, tmp_path: Path
) -> None:
    wav, out = write_wav(tmp_path / "a.wav", np.zeros(4 * 640)), tmp_path / "out.mp4"
    casting = Casting(portraits=[portrait])
    with pytest.raises(KeyboardInterrupt):
        generate(engine, casting, wav, out, resumable=True, progress=stop_at(2))
    (tmp_path / ".out.frames" / "notes.txt").write_text("mine")
    generate(engine, casting, wav, out, resumable=True)
    assert [p.name for p in (tmp_path / ".out.frames").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("out", ["frames", "out.mp4"])
def test_a_prompt_is_read_once(
    engine: AvatarEngine,
    portrait: np.ndarray,
    out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    def counted(text: str) -> Prompt:
        read.append(text)
        return AvatarEngine.read_prompt(engine, text)

    monkeypatch.setattr(engine, "read_prompt", counted)
    wav = write_wav(tmp_path / "a.wav", np.zeros(640))
    generate(engine, Casting(portraits=[portrait], prompt="smile"), wav, tmp_path / out)
    assert read == ["smile"]


@pytest.mark.parametrize("samples", [1, 640, 641])
def test_a_sound_of_any_length_gives_every_frame_it_begins(
    engine: AvatarEngine, portrait: np.ndarray, samples: int, tmp_path: Path
) -> None:
    frames = math.ceil(samples / 640)
    pcm = np.full(samples, 0.1, np.float32)
    drawn = list(frames_of(engine, engine.enroll(portrait), pcm))
    assert [frame.index for frame in drawn] == list(range(frames))
    wav = write_wav(tmp_path / "a.wav", pcm)
    for out in ("frames", "out.mp4"):
        assert generate(engine, Casting(portraits=[portrait]), wav, tmp_path / out).frames == frames
    assert len(pictures(tmp_path / "frames")) == frames
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames
    assert motion(wav, tmp_path / "m.npz") == frames


def test_tiny_draws_from_one_portrait(engine: AvatarEngine, portrait: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="sd15"):
        engine.enroll(portrait, more=[portrait])


def test_alpha_moves_with_what_it_belongs_to(engine: AvatarEngine, portrait: np.ndarray) -> None:
    own = portrait[..., 0]  # as if the alpha were a colour: it must come out as that colour does
    identity = engine.enroll(portrait, alpha=own)
    frames = [f.rgb for f in frames_of(engine, identity, np.zeros(3 * 640, np.float32), 3)]
    assert {frame.shape for frame in frames} == {(512, 512, 4)}
    changed = [(frame[..., 3] != own).mean() for frame in frames]
    same = [(frame[..., 3] == frame[..., 0]).mean() for frame in frames]
    assert min(changed) > 0.05
    assert min(same) > 0.8  # all but the painted mouth


def test_a_cut_out_stays_transparent_or_is_laid_on_a_background(
    engine: AvatarEngine, portrait: np.ndarray, tmp_path: Path
) -> None:
    alpha = np.full(portrait.shape[:2], 255, np.uint8)
    alpha[:100, :100] = 0
    laid = portrait.copy()
    laid[:100, :100] = 128
    wav = write_wav(tmp_path / "a.wav", np.zeros(640))
    blue = np.array([[(0, 0, 255)]], np.uint8)
    casting, said = Casting(portraits=[laid], alpha=alpha, size=(1024, 1024)), list[str]()
    generate(engine, casting, wav, tmp_path / "kept", say=said.append)
    assert said == [
        "The picture has 1024x1024 pixels and is drawn with 512x512; see --max-side.",
    ]
    generate(engine, replace(casting, background=blue), wav, tmp_path / "blue")
    generate(engine, casting, wav, tmp_path / "grey.mp4", say=said.append)
    assert "grey is shown there" in said[-1]
    with Image.open(tmp_path / "kept" / "000000.png") as image:
        kept = np.asarray(image)
    with Image.open(tmp_path / "blue" / "000000.png") as image:
        shown = np.asarray(image)
    assert kept.shape == (512, 512, 4)
    assert kept[:50, :50, 3].max() == 0
    assert (kept[200:, :, 3] == 255).all()
    assert shown.shape == (512, 512, 3)
    marked = 9  # of 255 at most, by the invisible mark
    assert np.abs(shown[:50, :50].astype(int) - (0, 0, 255)).max() <= marked
    assert np.abs(shown[200:].astype(int) - kept[200:, :, :3]).max() <= 2 * marked
    with av.open(str(tmp_path / "grey.mp4")) as container:
        grey = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(grey[:50, :50].astype(int) - 128).max() <= 2 + marked


def test_a_run_that_is_ended_leaves_nothing_half_made(tmp_path: Path) -> None:
    wav, out = write_wav(tmp_path / "a.wav", np.zeros(60 * 16_000)), tmp_path / "new" / "out.mp4"
    command = [sys.executable, "-m", "server.cli", "generate", "-p", str(BUNDLED_PORTRAIT)]
    with subprocess.Popen([*command, "-a", str(wav), "-o", str(out)]) as run:
        partial = out.with_name(".out.part.mp4")
        while not partial.exists():
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 128 + signal.SIGTERM
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
