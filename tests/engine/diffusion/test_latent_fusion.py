"""Windows that overlap, and what is made of a frame that stands in several."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.diffusion.latent_fusion import (
    LatentFusion,
    WindowsModel,
    fusion_windows,
    window_weights,
)
from engine.diffusion.samplers import Denoising, SamplerSettings, sample
from engine.errors import ConfigError

WindowModel = Callable[[Tensor, Tensor, Tensor], Tensor]

torch.set_num_threads(1)


def each(model: WindowModel) -> WindowsModel:
    """A model of one window as one of several."""
    return lambda windows: [model(*window) for window in windows]


def fuse(
    model: WindowModel, noise: Tensor, sampler: str, steps: int, window: int, overlap: int
) -> Tensor:
    settings = SamplerSettings(sampler=sampler, num_inference_steps=steps)
    run = Denoising(noise, settings)
    fusion = LatentFusion(each(model), run, window=window, overlap=overlap)
    while fusion.done < fusion.total:
        fusion.work()
    return fusion.latents


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize(("frames", "window", "overlap"), [(40, 16, 4), (17, 16, 6), (5, 8, 2)])
def test_windows_cover_every_frame_and_overlap(
    frames: int, window: int, overlap: int, pinned: bool
) -> None:
    windows = fusion_windows(frames, window, overlap, pinned=pinned)
    assert {i for members in windows for i in members} == set(range(frames))
    assert all(len(members) == min(window, frames) for members in windows)
    assert all(members == sorted(set(members)) for members in windows)
    for one, two in zip(windows, windows[1:], strict=False):
        assert len(set(one[1:]) & set(two)) >= overlap - 1
    if pinned:
        assert all(members[0] == 0 for members in windows)


def test_windows_that_never_get_on_are_refused() -> None:
    with pytest.raises(ConfigError, match="overlap=4"):
        fusion_windows(20, 4, 4)


def test_weights_are_triangular_and_normalise() -> None:
    torch.testing.assert_close(window_weights(4), torch.tensor([0.25, 0.75, 0.75, 0.25]))
    assert (window_weights(7) > 0).all()
    nothing = torch.zeros(23, 1, 1, 1)
    out = fuse(lambda z, t, rows: torch.ones_like(z), nothing, "flow", 1, 8, 3)
    torch.testing.assert_close(out, -torch.ones(23, 1, 1, 1))  # one step of the velocity 1


def test_a_frame_of_two_windows_is_their_weighted_mean() -> None:
    """Each window says its own number; the mean is written down here by hand."""
    seen: list[list[int]] = []

    def model(z: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        seen.append(rows.tolist())
        return torch.full_like(z, float(len(seen)))

    out = fuse(model, torch.zeros(6, 1, 1, 1), "flow", 1, 4, 2).flatten()
    assert seen == [[0, 1, 2, 3], [0, 3, 4, 5]]
    # weights .25 .75 .75 .25: frame 0 is first in both, frame 3 last in one and second in the other
    wanted = torch.tensor([1.5, 1.0, 1.0, (0.25 * 1 + 0.75 * 2) / 1.0, 2.0, 2.0])
    torch.testing.assert_close(-out, wanted)


def test_fusion_changes_nothing_for_a_model_that_sees_one_frame() -> None:
    noise = torch.randn(21, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    tint = torch.linspace(-1, 1, 21)[:, None, None, None]
    alone = sample(lambda z, t: 0.3 * z + tint, noise, SamplerSettings(num_inference_steps=6))
    together = fuse(lambda z, t, rows: 0.3 * z + tint[rows], noise, "ddim", 6, 8, 2)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)


def test_fusion_spreads_a_model_that_sees_its_whole_window() -> None:
    noise = torch.randn(21, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    tint = torch.arange(21)[:, None, None, None] * 0.1 + 0 * noise

    def model(z: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return z - 0.5 * z.mean(0, keepdim=True)

    def borders(overlap: int) -> float:
        clean = fuse(model, tint, "ddim", 6, 8, overlap)
        return float((clean[8] - clean[7]).abs().mean())

    assert borders(4) < borders(0)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "lcm"])
def test_a_video_stopped_at_any_window_goes_on_to_the_same_latents(sampler: str) -> None:
    noise = torch.randn(9, 4, 2, 2, generator=torch.Generator().manual_seed(0))

    def model(z: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return torch.tanh(z - 0.5 * z.mean(0, keepdim=True))

    settings = SamplerSettings(sampler=sampler, num_inference_steps=3)

    def begin() -> LatentFusion:
        run = Denoising(noise, settings, generator=torch.Generator().manual_seed(5))
        return LatentFusion(each(model), run, window=4, overlap=1)

    whole, broken = begin(), begin()
    while whole.done < whole.total:
        whole.work()
        kept = broken.pack()
        broken = begin()
        broken.unpack(kept)
        broken.work()
    assert broken.done == broken.total == 3 * len(broken.windows)
    assert torch.equal(broken.latents, whole.latents)
