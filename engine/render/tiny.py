"""The eye's counterpart: graphs that draw, and the one order in which they do.

`enroll` and `lines` run once a portrait; then, for each frame, `warp` (geometry, always fp32), `guide`
(AnimateNet), `denoise` (IdentityNet, once a step) and `decode`. Between two painted frames `carry` moves the last painted
crop along with the lips, which costs a third. Two small graphs without weights finish it at the
portrait's own resolution: `move` (the head by the flow, its eyes closed before by `engine.render.eyelids`)
and `composite` (the painted crop, where the warp is not to be trusted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Graph, GraphSpec, Tensor
from engine.diffusion.flow import flow_path
from engine.face.landmarks import Affine
from engine.face.matte import MATTE, Matting
from engine.face.topology import STABLE
from engine.motion.expression import refuse_words
from engine.render.base import FrameCondition, Portrait
from engine.render.composite_maps import cut_crop
from engine.render.compositing import Compositor, Layers
from engine.render.eyelids import close_lids, make_lids
from engine.render.paint_colours import PaintColours, paint_colours
from engine.render.specs import (
    CARRY,
    CHANNELS,
    DECODE,
    DENOISE,
    ENROLL,
    GUIDE,
    KEYS,
    LATENT,
    LINES,
    WARP,
)
from engine.render.tiny_face import HALVED, FrameCache, TinyFace, halved, lay_head
from engine.types import RgbImage

F32 = NDArray[np.float32]
# Of a placement, what is left of it in the landmarks that a crop is painted for: yaw and pitch.
_TURNED = np.array([1, 1, 0, 0, 0, 0], np.float32)


Job = tuple[TinyFace, FrameCache, FrameCondition]


@dataclass(frozen=True, slots=True)
class Rows:
    """One tensor a stream, read as one array (N, ...) only if somebody computes with it."""

    tensors: Sequence[Tensor]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows as one array."""
        return np.concatenate([np.asarray(tensor, dtype) for tensor in self.tensors])


class TinyRenderer:
    """The graphs of `SPECS`, and the one order in which they draw a frame.

    Args:
        load: gives the graph of a spec.
        steps: denoising steps a painted frame.
        put: brings an array to where the graphs read it (`Backend.put`).
    """

    carries = True

    def __init__(
        self,
        load: Callable[[GraphSpec], Graph],
        steps: int = 1,
        put: Callable[[NDArray[Any]], Tensor] = lambda array: array,
    ) -> None:
        self._steps, self._put = steps, put
        self._enroll, self._lines = load(ENROLL), load(LINES)
        self._warp, self._carry = load(WARP), load(CARRY)
        self._guide, self._denoise, self._decode = load(GUIDE), load(DENOISE), load(DECODE)
        self._compositor, self._matting = Compositor(load, put), Matting(load(MATTE))

    def enroll(self, portrait: Portrait) -> TinyFace:
        """Run the once-a-portrait part."""
        portrait = replace(portrait, matte=self._matte(portrait))
        cut = cut_crop(portrait.rgb, portrait.to_crop)
        crop = self._put(cut)
        source = self._put(portrait.source[None])
        face = TinyFace(
            crop=crop,
            source=source,
            lines=self._lines(source=source)["reference_maps"],
            steady=portrait.source[list(STABLE)],
            kept=self._enroll(crop=crop),
            composite=self._compositor.prepare(portrait),
            lids=make_lids(portrait.rgb, portrait.landmarks),
            colours=paint_colours(cut[0], portrait.source),
        )
        if not HALVED[0] <= max(face.size) <= HALVED[1]:
            return face
        small = halved(portrait)
        half = replace(
            face,
            composite=self._compositor.prepare(small),
            lids=make_lids(small.rgb, small.landmarks),
        )
        return replace(face, half=half)

    def _matte(self, portrait: Portrait) -> F32 | None:
        """How much of each pixel is the person (H, W): what is told by the alpha, else by the net."""
        if portrait.alpha is not None:
            return portrait.alpha.astype(np.float32) / np.float32(255)
        return self._matting(portrait.rgb, portrait.landmarks, portrait.to_crop)

    @staticmethod
    def noise(seed: int) -> F32:
        """The noise (1, 16, 32, 32) of a stream, the same for all its frames."""
        shape = (1, CHANNELS, LATENT, LATENT)
        return np.random.default_rng(seed).standard_normal(shape, np.float32)

    @staticmethod
    def read_words(text: str, others: tuple[str, ...]) -> None:
        """Nothing is painted from words here; raises `PromptRefused` if any are asked for."""
        refuse_words(others)

    @staticmethod
    def cold(face: TinyFace) -> FrameCache:
        """The cache before the first frame: the portrait itself."""
        return FrameCache(
            face.kept["latents"], tuple(face.kept[f"reference{i}"] for i in range(len(KEYS)))
        )

    def draw(self, jobs: Sequence[Job]) -> list[tuple[RgbImage, FrameCache]]:
        """Draw one frame (H, W, 3) of each stream, painting its crop afresh."""
        heads = [lay_head(face, condition) for face, _, condition in jobs]
        geometry, made, painted = self._paint(jobs, [level for _, level in heads])
        frames = self._compositor.compose(
            [
                _layers(face, condition, head, drawn["flow"], patch)
                for (face, _, condition), (head, _), drawn, patch in zip(
                    jobs, heads, geometry, painted, strict=True
                )
            ]
        )
        caches = [
            FrameCache(
                out["made_latents"],
                tuple(out[f"made{i}"] for i in range(len(KEYS))),
                patch,
                level,
            )
            for out, patch, (_, level) in zip(made, painted, heads, strict=True)
        ]
        return list(zip(frames, caches, strict=True))

    def _paint(
        self, jobs: Sequence[Job], levels: Sequence[F32]
    ) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]], list[Tensor]]:
        """What the graphs make of each stream: geometry, latents and keys, the painted crop.

        Args:
            levels: landmarks (1, 478, 2) of each that the crop is painted for; see `lay_head`.
        """
        geometry = self._warp.each(
            [
                {
                    "crop": face.crop,
                    "latents": face.kept["latents"],
                    "reference_maps": face.lines,
                    "source": face.source,
                    "level": level,
                    "target": condition.target[None],
                    **face.composite.flow,
                }
                for (face, _, condition), level in zip(jobs, levels, strict=True)
            ]
        )
        guidance = self._guide.each(
            [
                {
                    "maps": drawn["maps"],
                    "warped_latents": drawn["warped_latents"],
                    "previous_latents": cache.latents,
                    "target": level,
                    "placement": condition.placement[None] * _TURNED,
                }
                for (_, cache, condition), drawn, level in zip(jobs, geometry, levels, strict=True)
            ]
        )
        made = self._sample(jobs, guidance)
        painted = self._decode.each(
            [
                {
                    "made_latents": latents["made_latents"],
                    "warped": drawn["warped"],
                    "opening": drawn["opening"],
                }
                for latents, drawn in zip(made, geometry, strict=True)
            ]
        )
        patches = [
            out["patch"]
            if face.colours is None
            else self._put(_put_right(face.colours, drawn, out))
            for (face, _, _), drawn, out in zip(jobs, geometry, painted, strict=True)
        ]
        return geometry, made, patches

    def _sample(
        self, jobs: Sequence[Job], guidance: Sequence[Mapping[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """What the last denoising step made: latents, and keys/values for the next frame."""
        fixed = [
            {
                **face.kept,
                **{f"previous{i}": key for i, key in enumerate(cache.keys)},
                **guide,
            }
            for (face, cache, _), guide in zip(jobs, guidance, strict=True)
        ]
        made: list[dict[str, Tensor]] = []

        def predict(z_t: F32, now: float) -> Rows:
            t = np.array([now], np.float32)
            made[:] = self._denoise.each(
                [{"z_t": z_t[i : i + 1], "t": t, **feeds} for i, feeds in enumerate(fixed)]
            )
            return Rows([out["made_latents"] for out in made])

        noise = np.concatenate([condition.noise for _, _, condition in jobs])
        for _ in flow_path(predict, noise, self._steps):
            pass
        return made

    def draw_between(self, jobs: Sequence[Job]) -> list[RgbImage | None]:
        """Draw frames (H, W, 3) whose painted crop is the last one, moved along with the lips.

        Raises:
            ValueError: nothing was painted before.
        """
        if any(cache.patch is None for _, cache, _ in jobs):
            raise ValueError("a frame between two painted ones needs a painted one before it")
        heads = [lay_head(face, condition) for face, _, condition in jobs]
        moved = self._carry.each(
            [
                {
                    "patch": cache.patch,
                    "source": face.source,
                    "before": cache.level,
                    "level": level,
                    "target": condition.target[None],
                    **face.composite.flow,
                }
                for (face, cache, condition), (_, level) in zip(jobs, heads, strict=True)
            ]
        )
        frames = self._compositor.compose(
            [
                _layers(face, condition, head, out["flow"], out["carried"])
                for (face, _, condition), (head, _), out in zip(jobs, heads, moved, strict=True)
            ]
        )
        return list(frames)

    @staticmethod
    def pack(cache: FrameCache) -> dict[str, NDArray[Any]]:
        """A cache as arrays."""
        kept = {"latents": cache.latents, "patch": cache.patch, "level": cache.level}
        kept |= {f"key{i}": key for i, key in enumerate(cache.keys)}
        return {name: np.asarray(tensor) for name, tensor in kept.items() if tensor is not None}

    @staticmethod
    def unpack(kept: Mapping[str, NDArray[Any]]) -> FrameCache:
        """Undo `pack`."""
        keys = tuple(kept[f"key{i}"] for i in range(len(KEYS)))
        return FrameCache(kept["latents"], keys, kept.get("patch"), kept.get("level"))


def _put_right(
    colours: PaintColours, drawn: Mapping[str, Tensor], out: Mapping[str, Tensor]
) -> F32:
    return colours.correct(
        *(np.asarray(x) for x in (out["patch"], drawn["warped"], drawn["opening"]))
    )


def _layers(
    face: TinyFace, condition: FrameCondition, head: Affine, flow: Tensor, patch: Tensor
) -> Layers:
    """What the frame is put together from; lids come down over the portrait before it moves."""
    if not condition.blink.any():
        return Layers(face.composite, flow, patch, head)
    lids = close_lids(face.composite.person[0], face.lids, condition.blink)
    return Layers(face.composite, flow, patch, head, lids[None])
