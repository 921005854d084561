"""The measures against known answers, closed forms and second implementations."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from engine.errors import DataError, WeightsError
from engine.evaluation.measures.clip import Clip
from engine.evaluation.measures.columns import COLUMNS
from engine.evaluation.measures.inception import fid, kid
from engine.evaluation.measures.landmarks import landmark_distances
from engine.evaluation.measures.life import blinks
from engine.evaluation.measures.measure import measure_set
from engine.evaluation.measures.measured import Measured
from engine.evaluation.measures.pixels import psnr, ssim
from engine.evaluation.measures.steadiness import flicker, slope_a_minute
from engine.evaluation.measures.sync import sync_of, syncnet
from engine.evaluation.track import follow
from engine.loaders.syncnet import load_syncnet
from engine.nets.sync_expert import lip_shapes
from engine.nets.syncnet import SyncNet

pytestmark = pytest.mark.train
RNG = np.random.default_rng(0)
SYNCNET, SYNCNET_DEMO = (os.environ.get(f"PORTRAITTALK_SYNCNET{s}", "") for s in ("", "_DEMO"))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Smooth pictures (3, 48, 64, 3) with some grain."""
    smooth = gaussian_filter(RNG.normal(size=(3, 48, 64, 3)), (0, 4, 4, 0))
    smooth = 128 + 50 * smooth / smooth.std()
    return np.clip(smooth + RNG.normal(scale=4, size=smooth.shape), 0, 255).astype(np.uint8)


def noisy(frames: np.ndarray, scale: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(scale=scale, size=frames.shape)
    return np.clip(frames + noise, 0, 255).round().astype(np.uint8)


def ssim_by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of pictures (H, W, 3) by a Gaussian filter, without the border that its window crosses."""

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (1.5, 1.5, 0), radius=5, mode="reflect")[5:-5, 5:-5]

    a, b = a.astype(np.float64), b.astype(np.float64)
    ma, mb = blur(a), blur(b)
    va, vb, vab = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(
        ((2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()
    )


def test_equal_frames_are_infinitely_and_wholly_alike(frames: np.ndarray) -> None:
    assert np.isinf(psnr(frames, frames)).all()
    assert ssim(frames, frames) == pytest.approx(1, abs=1e-6)


def test_psnr_and_ssim_fall_with_noise_as_a_second_implementation_says(frames: np.ndarray) -> None:
    last = (np.inf, 1.0)
    for scale in (2, 8, 24):
        worse = noisy(frames, scale)
        found = psnr(frames, worse), ssim(frames, worse)
        error = np.square(frames.astype(float) - worse).reshape(3, -1).mean(1)
        assert found[0] == pytest.approx(20 * np.log10(255 / np.sqrt(error)), abs=1e-4)
        second = [ssim_by_scipy(a, b) for a, b in zip(frames, worse, strict=True)]
        assert found[1] == pytest.approx(second, abs=1e-4)
        now = found[0].mean(), found[1].mean()
        assert now[0] < last[0]
        assert now[1] < last[1]
        last = now
    with pytest.raises(ValueError, match="twice"):
        psnr(frames, frames[:2])


def test_landmark_distances_have_their_closed_forms() -> None:
    points = RNG.uniform(50, 150, (5, 68, 2))
    assert set(landmark_distances(points, points, (256, 256)).values()) == {0.0}
    moved = landmark_distances(points + [3, 4], points, (256, 256))
    assert moved["m_lmd"] == pytest.approx(5)
    assert moved["f_lmd"] == pytest.approx(5)
    assert moved["f_lmd_centred"] == pytest.approx(0, abs=1e-9)
    eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=1)
    assert moved["f_lmd_iod"] == pytest.approx((500 / eyes).mean())
    large = landmark_distances(points + [3, 4], points, (512, 512))
    assert large["f_lmd"] == pytest.approx(2.5)  # at 256 px, whatever the frames are
    talking = points.copy()
    talking[:, 48:] += [0, 2]
    only_mouth = landmark_distances(talking, points, (256, 256))
    assert only_mouth["m_lmd"] == pytest.approx(2)
    assert only_mouth["f_lmd"] == pytest.approx(2 * 20 / 68)
    with pytest.raises(ValueError, match="68"):
        landmark_distances(points[:, :5], points[:, :5], (256, 256))


@pytest.mark.parametrize("counts", [(60, 50), (9, 12)])
def test_fid_is_what_the_matrix_root_gives(counts: tuple[int, int]) -> None:
    a = RNG.normal(size=(counts[0], 16)) @ RNG.normal(size=(16, 16))
    b = RNG.normal(size=(counts[1], 16)) + 0.5
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(sqrtm(covariances[0] @ covariances[1] + 0j).real)
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    expected = shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert fid(a, b) == pytest.approx(expected, abs=1e-3)
    assert fid(a, a) == pytest.approx(0, abs=1e-6)


def test_kid_of_one_source_is_zero_on_average_and_grows_with_the_shift() -> None:
    same = [kid(RNG.normal(size=(40, 8)), RNG.normal(size=(40, 8))) for _ in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(40)
    a, b = RNG.normal(size=(40, 8)), RNG.normal(size=(40, 8))
    assert kid(a, b + 2) > kid(a, b + 1) > kid(a, b)


def test_a_set_says_how_many_frames_it_has_and_leaves_out_what_it_cannot_tell() -> None:
    one, other = (
        Measured(features={"inception": RNG.normal(size=(n, 8)).astype("f")}) for n in (30, 20)
    )
    told = measure_set([one, other], [other])
    assert (told["n_clips"], told["n_frames"], told["n_frames_real"]) == (2, 50, 20)
    assert told["fid"] > 0
    assert "fid" not in measure_set([Measured()], [one])


def test_flicker_is_none_in_steady_change_and_twice_the_height_of_a_jump() -> None:
    steady = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.full((1, 4, 4, 3), 7, np.uint8)
    assert flicker(steady) == pytest.approx(np.zeros(4), abs=1e-3)
    jumping = np.full((6, 4, 4, 3), 100, np.uint8)
    jumping[1::2] += 5
    assert flicker(jumping) == pytest.approx(np.full(4, 10), abs=1e-3)


def test_a_slope_is_told_a_minute() -> None:
    assert slope_a_minute(np.arange(50) * 0.01) == pytest.approx(0.01 * 25 * 60)
    assert slope_a_minute(np.zeros(1)) == 0


def test_blinks_are_counted_and_long_closed_eyes_are_none() -> None:
    lids = np.full(200, 0.1, np.float32)
    lids[20:25] = [0.3, 0.8, 0.9, 0.7, 0.3]
    lids[60:64] = 0.7
    lids[100:150] = 0.9
    lids[170:173] = 0.2  # hardly
    assert blinks(lids) == [(21, 24), (60, 64)]


@pytest.mark.parametrize("late", [-15, -5, 0, 3, 15])
@pytest.mark.parametrize("padded", [True, False])
def test_a_planted_shift_of_embeddings_is_found_with_its_sign(late: int, padded: bool) -> None:
    heard = RNG.normal(size=(120, 12)).astype("f")
    seen = np.roll(heard, late, axis=0) + RNG.normal(scale=0.3, size=heard.shape).astype("f")
    found = sync_of(seen, heard, padded=padded)
    assert found.offset == late
    assert found.confidence == pytest.approx(np.median(found.curve) - found.curve.min(), abs=1e-4)
    other = sync_of(RNG.normal(size=heard.shape).astype("f"), heard, padded=padded)
    assert other.confidence < 0.3 * found.confidence
    with pytest.raises(ValueError, match="twice"):
        sync_of(seen[:5], heard)


def test_lip_shapes_do_not_see_where_how_large_or_how_tilted_a_face_is() -> None:
    face = RNG.uniform(0, 100, (4, 478, 2))
    c, s = np.cos(0.4), np.sin(0.4)
    moved = 1.7 * face @ np.array([[c, s], [-s, c]]) + [12, 40]
    assert lip_shapes(moved) == pytest.approx(lip_shapes(face), abs=1e-4)


def test_the_syncnet_loader_takes_its_layout_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = SyncNet()
    torch.save(net.state_dict(), tmp_path / "syncnet_v2.model")
    loaded = load_syncnet(tmp_path / "syncnet_v2.model")
    assert not loaded.training
    with torch.inference_mode():
        assert loaded.forward_aud(torch.zeros(1, 1, 13, 20)).shape == (1, 1024)
        assert loaded.forward_lip(torch.zeros(1, 3, 5, 224, 224)).shape == (1, 1024)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.model")
    with pytest.raises(WeightsError, match="no SyncNet"):
        load_syncnet(tmp_path / "other.model")
    torch.save(net, tmp_path / "pickled.model")  # a whole module: code, which is not run
    with pytest.raises(WeightsError, match="cannot be read"):
        load_syncnet(tmp_path / "pickled.model")


@pytest.mark.skipif(
    not (SYNCNET and SYNCNET_DEMO),
    reason="not run: PORTRAITTALK_SYNCNET and PORTRAITTALK_SYNCNET_DEMO name no files",
)
def test_the_public_syncnet_gives_its_published_figures_on_its_demo_clip() -> None:
    clip = Clip.read(Path(SYNCNET_DEMO))
    assert clip.sound is not None
    found = syncnet(clip.frames, clip.sound, Path(SYNCNET))
    assert found.offset == 3
    assert found.distance == pytest.approx(5.353, abs=0.02)
    assert found.confidence == pytest.approx(10.021, abs=0.02)


def write_video(path: Path, frames: np.ndarray, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt, stream.options = "yuv444p", {"qp": "0", "bf": "0"}
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())


def test_another_frame_rate_is_taken_by_time_and_missing_sound_is_said(tmp_path: Path) -> None:
    levels = np.arange(50, dtype=np.uint8) * 4 + 20  # a second at 50 a second
    frames = np.broadcast_to(levels[:, None, None, None], (50, 32, 32, 3)).copy()
    write_video(tmp_path / "fast.mp4", frames, 50)
    clip = Clip.read(tmp_path / "fast.mp4")
    assert clip.frames.shape == (25, 32, 32, 3)
    assert clip.sound is None
    assert [n.split(" ")[0] for n in clip.notes] == ["50", "no"]
    assert np.abs(clip.frames[:, 0, 0, 0].astype(int) - levels[1::2]).max() <= 3
    write_video(tmp_path / "slow.mp4", frames[:10], 10)
    assert len(Clip.read(tmp_path / "slow.mp4").frames) == 25
    with pytest.raises(DataError, match="longer than"):
        Clip.read(tmp_path / "slow.mp4", longest_s=0.5)


def test_what_is_no_video_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    for name in ("x.mp4", "missing.mp4"):
        with pytest.raises(DataError, match=name):
            Clip.read(tmp_path / name)
    with pytest.raises(DataError, match="no face in any of 3"):
        follow(np.full((3, 96, 96, 3), 90, np.uint8))


def test_every_column_says_which_way_is_better() -> None:
    assert all(name == column.name and column.title for name, column in COLUMNS.items())
    assert COLUMNS["psnr"].better == COLUMNS["sync_c"].better == "higher"
    assert COLUMNS["fid"].better == COLUMNS["m_lmd"].better == "lower"
    assert COLUMNS["psnr"].protocol == "pose-given"
