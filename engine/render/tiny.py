"""The eye's counterpart: graphs that draw, and the one order in which they do.

`enroll` runs once a portrait; then, for each frame, `warp` (geometry, always fp32), `guide`
(AnimateNet), `denoise` (IdentityNet, once a step) and `decode`. Between two painted frames `carry` moves the last painted
window along with the lips, which costs a third. Two small graphs without weights finish it at the
portrait's own resolution: `move` (the head by the flow, its eyes closed before by `engine.render.eyelids`)
and `inlay` (the painted window, where the warp is not to be trusted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends import Graph, GraphSpec
from engine.errors import ConfigError
from engine.face.landmarks import Affine, apply
from engine.motion.expression import refuse_words
from engine.render.compositing import Canvas, cut_window, make_canvas
from engine.render.eyelids import Eye, close_lids, make_lids
from engine.render.specs import (
    CARRY,
    DECODE,
    DENOISE,
    ENROLL,
    GUIDE,
    INLAY,
    KEYS,
    LATENTS,
    MOVE,
    WARP,
)
from engine.types import RgbImage

F32 = NDArray[np.float32]

SHIFT = 6.0  # of the sampler's times


def sampling_times(steps: int) -> list[float]:
    """Times of the sampler, from 1 (noise) to 0: steps + 1 of them.

    Shifted towards the noise (arXiv 2403.03206, formula 23): a face whose landmarks and reference
    are known is all but decided there, and steps near 0 only add up their own errors.
    """
    even = [1 - i / steps for i in range(steps + 1)]
    return [SHIFT * t / (1 + (SHIFT - 1) * t) for t in even]


@dataclass(frozen=True, slots=True)
class Portrait:
    """A portrait whose face was read; what every picture part enrols."""

    rgb: RgbImage  # (H, W, 3)
    landmarks: F32  # (478, 2) pixels
    to_window: Affine  # pixels -> window units

    @property
    def source(self) -> F32:
        """Landmarks (478, 2) in window units."""
        return apply(self.to_window, self.landmarks)


@dataclass(frozen=True, slots=True)
class Shot:
    """What one frame is to show."""

    target: F32  # landmarks (478, 2) in window units, eyes open
    blink: F32  # (2,) how far the right and the left eye close, in [0, 1]
    placement: F32  # (6,) head pose
    noise: Any  # of the stream
    index: int = 0  # of the frame
    words: Any = None  # of the prompt, where the picture part reads any
    speech: F32 | None = None  # (16, W) features, where the picture part listens itself


@dataclass(frozen=True, slots=True)
class Face:
    """A portrait enrolled for drawing: its window, what the networks keep of it, its canvas."""

    window: F32  # (1, 3, 128, 128) in [-1, 1]
    source: F32  # (1, 478, 2) landmarks in window units
    kept: dict[str, F32]  # latents, identity, reference keys/values
    canvas: Canvas
    lids: tuple[Eye, Eye]  # right, left

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.canvas.rgb.shape[:2]
        return height, width


@dataclass(slots=True)
class FrameCache:
    """What a frame hands to the next: its latents and keys/values of the last denoising step.

    `patch` and `target` are the last painted window and the landmarks it was painted for.
    """

    latents: F32
    keys: tuple[F32, ...]
    patch: F32 | None = None  # (1, 4, 128, 128)
    target: F32 | None = None  # (1, 478, 2)


class Film(Protocol):
    """A whole video whose frames are sampled together, piece by piece; it can be stopped and gone on
    with.
    """

    total: int  # pieces until `frame` may be asked

    @property
    def done(self) -> int:
        """Pieces so far."""

    def work(self) -> None:
        """Do one piece."""

    def frame(self, index: int) -> RgbImage:
        """Decode one frame."""

    def pack(self) -> dict[str, NDArray[Any]]:
        """Lay all that was done out as arrays."""

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Undo `pack`."""


class Picture(Protocol):
    """The part of an engine that draws; all it is given but the last frame's cache is read-only.

    A face and a cache are opaque to the caller. `words` is what `read_words` made of the prompt.
    """

    def read_words(self, text: str, others: tuple[str, ...]) -> Any:
        """Read a prompt, of which `others` are no expressions; raises `PromptRefused`."""

    def enroll(
        self,
        portrait: Portrait,
        more: Sequence[Portrait] = (),
        mixed: Sequence[tuple[Portrait, float]] = (),
    ) -> Any:
        """Run the once-a-portrait part; `more` of the same person, shares of others `mixed` in.

        Raises:
            ConfigError: it draws from one portrait only, or the shares leave nothing of the person.
        """

    def noise(self, seed: int) -> Any:
        """Draw the noise of a stream."""

    def cold(self, face: Any) -> Any:
        """Make the cache before the first frame."""

    def draw(self, face: Any, cache: Any, shot: Shot) -> tuple[RgbImage, Any]:
        """Draw one frame afresh; returns it and the cache for the next."""

    def draw_between(self, face: Any, cache: Any, shot: Shot) -> RgbImage:
        """Draw one frame by moving the last one that was drawn afresh."""

    def film(self, face: Any, shots: Sequence[Shot]) -> Film:
        """Begin a video whose frames are sampled together.

        Raises:
            ConfigError: it draws frame after frame only.
        """

    def pack(self, cache: Any) -> dict[str, NDArray[Any]]:
        """Lay a cache out as arrays, from which `unpack` makes the same cache again."""

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> Any:
        """Undo `pack`."""


class PictureGraphs:
    """The graphs of `SPECS`, and the one order in which they draw a frame.

    Args:
        load: gives the graph of a spec.
        steps: denoising steps a painted frame.
    """

    def __init__(self, load: Callable[[GraphSpec], Graph], steps: int = 1) -> None:
        self._steps = steps
        self._enroll, self._warp, self._carry = load(ENROLL), load(WARP), load(CARRY)
        self._guide, self._denoise, self._decode = load(GUIDE), load(DENOISE), load(DECODE)
        self._move, self._inlay = load(MOVE), load(INLAY)

    def enroll(
        self,
        portrait: Portrait,
        more: Sequence[Portrait] = (),
        mixed: Sequence[tuple[Portrait, float]] = (),
    ) -> Face:
        """Run the once-a-portrait part."""
        if more or mixed:
            raise ConfigError("the tiny profile draws from one portrait; use --profile sd15")
        window = cut_window(portrait.rgb, portrait.to_window)
        canvas = make_canvas(portrait.rgb, portrait.to_window)
        lids = make_lids(portrait.rgb, portrait.landmarks)
        return Face(window, portrait.source[None], self._enroll(window=window), canvas, lids)

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

    def draw(self, face: Face, cache: FrameCache, shot: Shot) -> tuple[RgbImage, FrameCache]:
        """Draw one frame, painting its window afresh."""
        points = shot.target[None]
        geometry = self._warp(
            window=face.window,
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
            placement=shot.placement[None],
        )
        made = self._sample(face, cache, guidance, shot.noise)
        latents = made["made_latents"]
        patch = self._decode(
            made_latents=latents, warped=geometry["warped"], opening=geometry["opening"]
        )["patch"]
        rgb = self.compose(face.canvas, flow, patch, _eyes(face, shot.blink))
        keys = tuple(made[f"made{i}"] for i in range(len(KEYS)))
        return rgb, FrameCache(latents, keys, patch, points)

    def _sample(
        self, face: Face, cache: FrameCache, guidance: dict[str, F32], noise: F32
    ) -> dict[str, F32]:
        """Euler on the rectified path (arXiv 2209.03003): what the last step made."""
        previous = {f"previous{i}": key for i, key in enumerate(cache.keys)}
        z_t, made = noise, {}
        for now, left in pairwise(sampling_times(self._steps)):
            made = self._denoise(
                z_t=z_t, t=np.array([now], np.float32), **face.kept, **previous, **guidance
            )
            z_0 = made["made_latents"]
            z_t = z_0 + np.float32(left / now) * (z_t - z_0)
        return made

    def draw_between(self, face: Face, cache: FrameCache, shot: Shot) -> RgbImage:
        """Draw one frame whose painted window is the last one, moved along with the lips.

        Raises:
            ValueError: nothing was painted before.
        """
        if cache.patch is None or cache.target is None:
            raise ValueError("a frame between two painted ones needs a painted one before it")
        moved = self._carry(
            patch=cache.patch,
            source=face.source,
            before=cache.target,
            target=shot.target[None],
        )
        eyes = _eyes(face, shot.blink)
        return self.compose(face.canvas, moved["flow"], moved["carried"], eyes)

    @staticmethod
    def film(face: Face, shots: Sequence[Shot]) -> Film:
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
        self, canvas: Canvas, flow: F32, patch: F32, blinking: F32 | None = None
    ) -> RgbImage:
        """Move the portrait by `flow` and lay the painted `patch` in: (H, W, 3).

        Args:
            blinking: the portrait (1, 3, H, W) with its lids down, while they are.
        """
        portrait = (
            canvas.portrait if blinking is None else {**canvas.portrait, "portrait": blinking}
        )
        frame = self._move(**portrait, flow=flow, **canvas.head.at)["rgb"]
        if frame.shape != canvas.rgb.shape:  # a small head: most of the portrait stands still
            head, frame = frame, canvas.rgb.copy()
            frame[canvas.head.box] = head
        under = np.ascontiguousarray(frame[canvas.window.box])
        laid = self._inlay(moved=under, patch=patch, **canvas.window.at)
        frame[canvas.window.box] = laid["rgb"]
        return frame


def _eyes(face: Face, blink: F32) -> F32 | None:
    """The portrait with its lids down; None while both eyes are open."""
    if not blink.any():
        return None
    return close_lids(face.canvas.portrait["portrait"][0], face.lids, blink)[None]
