"""A long video of the full-size system by progressive latent fusion: its frames sampled together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.diffusion.latent_fusion import LatentFusion, Window
from engine.diffusion.samplers import Denoising
from engine.nets.portraittalk import Caches
from engine.render.base import FrameCondition
from engine.render.sd15_networks import DiffusionFace, FrameNetworks
from engine.render.sd15_sampling import noise_between
from engine.render.together import Work, together
from engine.types import RgbImage


class DiffusionFusedVideo:
    """A video by latent fusion; an `engine.render.base.FusedVideo`.

    Args:
        fusion: over the portrait, which is row 0, and the frames.
        decode: latents (B, 4, h, w) -> images.
    """

    def __init__(self, fusion: LatentFusion, decode: Callable[[Tensor], list[RgbImage]]) -> None:
        self._fusion, self._decode = fusion, decode
        self.total = fusion.total
        self.pack, self.unpack = fusion.pack, fusion.unpack

    @property
    def done(self) -> int:
        """Windows sampled, over all steps."""
        return self._fusion.done

    @torch.inference_mode()
    def work(self) -> None:
        """Sample some windows of one step."""
        self._fusion.work()

    @torch.inference_mode()
    def frame(self, index: int) -> RgbImage:
        """Decode frame `index`, (S, S, 3); all windows must be done."""
        return self._decode(self._fusion.latents[index + 1 : index + 2])[0]


def fused_video(
    networks: FrameNetworks, face: DiffusionFace, conditions: Sequence[FrameCondition]
) -> DiffusionFusedVideo:
    """Begin a video of `face`, one frame a condition.

    Row 0 of its latents is the portrait at rest, in the words of the first frame: it is pinned to every
    window and not shown. Within a window each frame sees the keys and values that the one before it
    has at the same step; windows wait for no other one, so they are predicted together.
    """
    aims = [networks.aim(face, condition) for condition in conditions]
    rest = networks.rest(face, aims[0].text, aims[0].speech)
    aims.insert(0, replace(rest, strengths=aims[0].strengths))
    sampling, noise = networks.sampling, conditions[0].noise

    def window(z_t: Tensor, t: Tensor, rows: Tensor) -> Work[Tensor]:
        made: list[Tensor] = []
        before: Caches | None = None
        for place, row in enumerate(rows.tolist()):
            guide = networks.guide(face, aims[row], aims[max(row - 1, 0)].placed)
            aim = aims[row]
            model = networks.frame_model(face, guide, aim.text, before, aim.strengths)
            made.append((yield from model.predict(z_t[place : place + 1], t[place : place + 1])))
            before = networks.remember(model)
        return torch.cat(made)

    def windows(those: Sequence[Window]) -> list[Tensor]:
        return together(networks.step, [window(*one) for one in those])

    run = Denoising(
        noise.start.expand(len(aims), -1, -1, -1),
        sampling,
        generator=[noise_between(noise.seed) for _ in aims],
    )
    fusion = LatentFusion(windows, run, window=sampling.window, overlap=sampling.overlap)
    return DiffusionFusedVideo(fusion, networks.decode)
