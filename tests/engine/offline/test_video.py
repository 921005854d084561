from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.audio.sound_file import MARK
from engine.avatar import AvatarEngine
from engine.errors import ConfigError, MediaError, PromptRefused
from engine.face.image_file import decode_image
from engine.offline.video import Casting, frames_of, generate
from server.run import BUNDLED_PORTRAIT


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
    return [path.read_bytes() for path in sorted(folder.iterdir())]


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


def test_tiny_draws_from_one_portrait(engine: AvatarEngine, portrait: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="sd15"):
        engine.enroll(portrait, more=[portrait])
