"""The eye's counterpart: graphs that draw, and the one order in which they do.

`enroll` runs once a portrait; then, for each frame, `warp` (geometry, always fp32), `guide`
(AnimateNet), `denoise` (IdentityNet, once a step) and `decode`. Between two painted frames `carry` moves the last painted
crop along with the lips, which costs a third. Two small graphs without weights finish it at the
portrait's own resolution: `move` (the head by the flow, its eyes closed before by `engine.render.eyelids`)
and `composite` (the painted crop, where the warp is not to be trusted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Graph, GraphSpec
from engine.diffusion.flow import flow_path
from engine.errors import ConfigError
from engine.motion.expression import refuse_words
from engine.render.base import FrameCondition, FusedVideo, Portrait
from engine.render.compositing import CompositeMaps, cut_crop, make_composite_maps
from engine.render.eyelids import Eye, close_lids, make_lids
from engine.render.specs import (
    CARRY,
    COMPOSITE,
    DECODE,
    DENOISE,
    ENROLL,
    GUIDE,
    KEYS,
    LATENTS,
    MOVE,
    WARP,
)
from engine.types import RgbImage

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Face:
    """A portrait enrolled for drawing: its crop, what the networks keep of it, its composite."""

    crop: F32  # (1, 3, 128, 128) in [-1, 1]
    source: F32  # (1, 478, 2) landmarks in crop units
    kept: dict[str, F32]  # latents, identity, reference keys/values
    composite: CompositeMaps
    lids: tuple[Eye, Eye]  # right, left

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.composite.rgb.shape[:2]
        return height, width


@dataclass(slots=True)
class FrameCache:
    """What a frame hands to the next: its latents and keys/values of the last denoising step.

    `patch` and `target` are the last painted crop and the landmarks it was painted for.
    """

    latents: F32
    keys: tuple[F32, ...]
    patch: F32 | None = None  # (1, 4, 128, 128)
    target: F32 | None = None  # (1, 478, 2)


class TinyRenderer:
    """The graphs of `SPECS`, and the one order in which they draw a frame.

    Args:
        load: gives the graph of a spec.
        steps: denoising steps a painted frame.
    """

    def __init__(self, load: Callable[[GraphSpec], Graph], steps: int = 1) -> None:
        self._steps = steps
        self._enroll, self._warp, self._carry = load(ENROLL), load(WARP), load(CARRY)
        self._guide, self._denoise, self._decode = load(GUIDE), load(DENOISE), load(DECODE)
        self._move, self._composite = load(MOVE), load(COMPOSITE)

    def enroll(
        self,
        portrait: Portrait,
        more: Sequence[Portrait] = (),
        mixed: Sequence[tuple[Portrait, float]] = (),
    ) -> Face:
        """Run the once-a-portrait part."""
        if more or mixed:
            raise ConfigError("the tiny profile draws from one portrait; use --profile sd15")
        crop = cut_crop(portrait.rgb, portrait.to_crop)
        composite = make_composite_maps(portrait.rgb, portrait.to_crop)
        lids = make_lids(portrait.rgb, portrait.landmarks)
        return Face(crop, portrait.source[None], self._enroll(crop=crop), composite, lids)

    @staticmethod
    def noise(seed: int) -> F32:
        """The noise (1, 16, 32, 32) of a stream, the same for all its frames."""
        return np.random.default_rng(seed).standard_normal(LATENTS, np.float32)

    @staticmethod
    def read_words(text: str, others: tuple[str, ...]) -> None:
        """Nothing is painted from words here; raises `PromptRefused` if any are asked for."""
        refuse_words(others)

    @staticmethod
    def cold(face: Face) -> FrameCache:
        """The cache before the first frame: the portrait itself."""
        return FrameCache(
            face.kept["latents"], tuple(face.kept[f"reference{i}"] for i in range(len(KEYS)))
        )

    def draw(
        self, face: Face, cache: FrameCache, condition: FrameCondition
    ) -> tuple[RgbImage, FrameCache]:
        """Draw one frame, painting its crop afresh."""
        points = condition.target[None]
        geometry = self._warp(
            crop=face.crop,
            latents=face.kept["latents"],
            source=face.source,
            target=points,
        )
        flow = geometry.pop("flow")
        guidance = self._guide(
            maps=geometry["maps"],
            warped_latents=geometry["warped_latents"],
            previous_latents=cache.latents,
            target=points,
            placement=condition.placement[None],
        )
        made = self._sample(face, cache, guidance, condition.noise)
        latents = made["made_latents"]
        patch = self._decode(
            made_latents=latents, warped=geometry["warped"], opening=geometry["opening"]
        )["patch"]
        rgb = self.compose(face.composite, flow, patch, _eyes(face, condition.blink))
        keys = tuple(made[f"made{i}"] for i in range(len(KEYS)))
        return rgb, FrameCache(latents, keys, patch, points)

    def _sample(
        self, face: Face, cache: FrameCache, guidance: dict[str, F32], noise: F32
    ) -> dict[str, F32]:
        """What the last denoising step made: latents, and keys/values for the next frame."""
        previous = {f"previous{i}": key for i, key in enumerate(cache.keys)}
        made: dict[str, F32] = {}

        def predict(z_t: F32, now: float) -> F32:
            made.update(
                self._denoise(
                    z_t=z_t, t=np.array([now], np.float32), **face.kept, **previous, **guidance
                )
            )
            return made["made_latents"]

        for _ in flow_path(predict, noise, self._steps):
            pass
        return made

    def draw_between(self, face: Face, cache: FrameCache, condition: FrameCondition) -> RgbImage:
        """Draw one frame whose painted crop is the last one, moved along with the lips.

        Raises:
            ValueError: nothing was painted before.
        """
        if cache.patch is None or cache.target is None:
            raise ValueError("a frame between two painted ones needs a painted one before it")
        moved = self._carry(
            patch=cache.patch,
            source=face.source,
            before=cache.target,
            target=condition.target[None],
        )
        eyes = _eyes(face, condition.blink)
        return self.compose(face.composite, moved["flow"], moved["carried"], eyes)

    @staticmethod
    def film(face: Face, conditions: Sequence[FrameCondition]) -> FusedVideo:
        """There is none here."""
        raise ConfigError("the tiny profile draws frame after frame; use --profile sd15")

    @staticmethod
    def pack(cache: FrameCache) -> dict[str, NDArray[Any]]:
        """A cache as arrays."""
        kept = {f"key{i}": key for i, key in enumerate(cache.keys)}
        painted = {"patch": cache.patch, "target": cache.target}
        return {"latents": cache.latents, **kept} | {
            name: array for name, array in painted.items() if array is not None
        }

    @staticmethod
    def unpack(kept: Mapping[str, NDArray[Any]]) -> FrameCache:
        """Undo `pack`."""
        keys = tuple(kept[f"key{i}"] for i in range(len(KEYS)))
        return FrameCache(kept["latents"], keys, kept.get("patch"), kept.get("target"))

    def compose(
        self, composite: CompositeMaps, flow: F32, patch: F32, blinking: F32 | None = None
    ) -> RgbImage:
        """Move the portrait by `flow` and lay the painted `patch` in: (H, W, 3).

        Args:
            blinking: the portrait (1, 3, H, W) with its lids down, while they are.
        """
        portrait = (
            composite.portrait if blinking is None else {**composite.portrait, "portrait": blinking}
        )
        frame = self._move(**portrait, flow=flow, **composite.head.at)["rgb"]
        if frame.shape != composite.rgb.shape:  # a small head: most of the portrait stands still
            head, frame = frame, composite.rgb.copy()
            frame[composite.head.box] = head
        under = np.ascontiguousarray(frame[composite.crop.box])
        laid = self._composite(moved=under, patch=patch, **composite.crop.at)
        frame[composite.crop.box] = laid["rgb"]
        return frame


def _eyes(face: Face, blink: F32) -> F32 | None:
    """The portrait with its lids down; None while both eyes are open."""
    if not blink.any():
        return None
    return close_lids(face.composite.portrait["portrait"][0], face.lids, blink)[None]
