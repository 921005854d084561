"""Coded files: their colours and alpha are those of the frames, and they say how to read them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from engine.errors import MediaError
from engine.offline.cut_out import fitted, laid_on, lifted
from engine.offline.video_file import write_video
from engine.offline.video_format import SUFFIXES, video_format
from engine.types import VideoFrame
from tests.engine.audio.test_sound_file import tone, with_tracks, write_wav

BT709, SRGB, LIMITED = 1, 13, 1
PATCH = (220, 20, 40)


def patches(alpha: bool = False, side: int = 128) -> list[VideoFrame]:
    """Half of the picture is red, half grey; with alpha a corner is transparent."""
    picture = np.full((side, side, 4 if alpha else 3), 128, np.uint8)
    picture[: side // 2, :, :3] = PATCH
    if alpha:
        picture[..., 3] = 255
        picture[: side // 4, : side // 4] = (128, 128, 128, 0)
    return [VideoFrame(index, picture) for index in range(5)]


def written(out: Path, frames: list[VideoFrame], *, alpha: bool = False) -> Path:
    wav = write_wav(out.parent / "a.wav", tone(0.2))
    write_video(iter(frames), frames[0].rgb.shape[:2], wav, out, alpha=alpha)
    return out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_colours_are_those_of_the_frames_in_bt_709(suffix: str, tmp_path: Path) -> None:
    out = written(tmp_path / f"out{suffix}", patches())
    with av.open(str(out)) as container:
        codec = container.streams.video[0].codec_context
        tags = codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range
        assert tags == (BT709, SRGB, BT709, LIMITED)
        shown = [
            frame.reformat(format="rgb24", src_colorspace=BT709).to_ndarray()
            for frame in container.decode(video=0)
        ]
    assert len(shown) == 5
    for frame in shown:
        assert np.abs(frame[30, 60].astype(int) - PATCH).max() <= 2
        assert np.abs(frame[100, 60].astype(int) - 128).max() <= 2


def test_alpha_is_in_prores_and_in_vp9_and_nowhere_else(tmp_path: Path) -> None:
    out = written(tmp_path / "out.mov", patches(alpha=True), alpha=True)
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.profile == "4444"
        for frame in container.decode(video=0):
            shown = frame.reformat(format="rgba", src_colorspace=BT709).to_ndarray()
            assert np.abs(shown[5:25, 5:25, 3].astype(int)).max() <= 1
            assert (shown[40:, :, 3] == 255).all()
            assert np.abs(shown[50, 60, :3].astype(int) - PATCH).max() <= 2
    out = written(tmp_path / "out.webm", patches(alpha=True), alpha=True)
    with av.open(str(out)) as container:
        assert container.streams.video[0].metadata["alpha_mode"] == "1"
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own leaves alpha out
        packets = list(container.demux(video=0))
        shown = [frame for packet in packets for frame in decoder.decode(packet)]
    assert {frame.format.name for frame in shown} == {"yuva420p"}
    alpha = shown[2].reformat(format="rgba", src_colorspace=BT709).to_ndarray()[..., 3]
    assert alpha[5:25, 5:25].max() <= 2
    assert alpha[40:].min() >= 253
    for suffix in (".mp4", ".mkv"):
        with pytest.raises(MediaError, match="cannot be transparent"):
            video_format(Path(f"out{suffix}"), alpha=True)


def test_the_track_that_is_spoken_is_the_one_in_the_video(tmp_path: Path) -> None:
    sound = with_tracks(tmp_path / "a.mkv", [np.zeros(8000), tone(0.5, hertz=700)])
    write_video(iter(patches()), (128, 128), sound, tmp_path / "out.mp4", alpha=False)
    with av.open(str(tmp_path / "out.mp4")) as container:
        pieces = [frame.to_ndarray() for frame in container.decode(audio=0)]
    heard = np.concatenate(pieces, axis=1).mean(0)[:19_200]
    assert np.abs(np.fft.rfft(heard)).argmax() == pytest.approx(700 * 0.4, abs=1)


def on_grey(own: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What the engine draws of a cut-out: its colours on grey, and its alpha."""
    part = alpha[..., None] / 255
    laid = np.round(own * part + 128 * (1 - part)).astype(np.uint8)
    return np.dstack([laid, alpha])


def test_a_cut_out_is_laid_on_a_background_as_if_it_had_never_been_on_grey() -> None:
    rng = np.random.default_rng(0)
    own, behind = (rng.integers(0, 256, (32, 48, 3), np.uint8) for _ in range(2))
    alpha = rng.integers(0, 256, (32, 48), np.uint8)
    part = alpha[..., None] / 255
    wanted = own * part + behind * (1 - part)
    assert np.abs(laid_on(on_grey(own, alpha), behind) - wanted).max() <= 1.1
    kept = lifted(on_grey(own, alpha))
    assert (kept[..., 3] == alpha).all()
    seen = kept[..., :3] * part + behind * (1 - part)  # by who shows the file
    assert np.abs(seen - wanted)[alpha >= 16].max() <= 1.1
    assert (lifted(on_grey(own, np.zeros_like(alpha)))[..., :3] == 128).all()


def test_a_background_fills_the_picture() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 13:27] = PATCH  # what is cut off is 15 on each side
    assert fitted(wide, 20, 20).shape == (20, 20, 3)
    assert (fitted(wide, 20, 20)[:, 2:-2] == PATCH).all()
    assert (fitted(np.full((1, 1, 3), PATCH, np.uint8), 6, 8) == PATCH).all()
