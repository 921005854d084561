"""Puts a frame together: the portrait's head moved, and the painted crop laid into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Graph, GraphSpec, Tensor
from engine.face.landmarks import Affine
from engine.render.base import Portrait
from engine.render.composite_maps import CompositeMaps, make_composite_maps
from engine.render.specs import COMPOSITE, MOVE
from engine.types import RgbImage

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Composite:
    """A portrait made ready for compositing: its maps, and what the graphs are always fed of them."""

    maps: CompositeMaps
    turn: Tensor  # `CompositeMaps.turn`
    move: dict[str, Tensor]
    alpha: NDArray[np.uint8] | None = None  # (H, W) of the portrait
    cut_out: dict[str, Tensor] = field(default_factory=dict)  # as `move`, of the alpha


@dataclass(frozen=True, slots=True)
class Layers:
    """What one frame is put together from."""

    composite: Composite
    flow: Tensor  # (1, 2, rows, columns) of the head, turned, on the grid of `GRID_Y` and `GRID_X`
    patch: Tensor  # (1, 4, 128, 128) the painted crop, and how far the moved portrait shows through
    head: Affine  # (2, 3) from places in the portrait to those in the frame, crop units
    blinking: F32 | None = None  # (1, 3, H, W) the portrait with its lids down, while they are


class Compositor:
    """Moves portraits and lays painted crops into them.

    Args:
        load: gives the graph of a spec.
        put: brings an array to where the graphs read it (`Backend.put`).
    """

    def __init__(
        self, load: Callable[[GraphSpec], Graph], put: Callable[[NDArray[Any]], Tensor]
    ) -> None:
        self._move, self._lay, self._put = load(MOVE), load(COMPOSITE), put

    def prepare(self, portrait: Portrait) -> Composite:
        """Make a portrait ready."""
        maps, alpha = make_composite_maps(portrait.rgb, portrait.to_crop), portrait.alpha
        fixed = {"portrait": maps.portrait, **maps.head.at}
        turn, move = self._put(maps.turn), {name: self._put(a) for name, a in fixed.items()}
        if alpha is None:
            return Composite(maps, turn, move)
        as_colours = np.repeat(alpha[None, None].astype(np.float32), 3, 1)
        cut_out = {**move, "portrait": self._put(as_colours)}
        return Composite(maps, turn, move, alpha, cut_out)

    def compose(self, frames: Sequence[Layers]) -> list[RgbImage]:
        """Put one frame (H, W, 3), with alpha (H, W, 4), of each of several streams together."""
        feeds = []
        for layers in frames:
            feeds.append({**layers.composite.move, "flow": layers.flow})
            if layers.blinking is not None:
                feeds[-1]["portrait"] = layers.blinking
        moved = [
            _place_head(layers.composite.maps, np.asarray(out["moved"])[0])
            for layers, out in zip(frames, self._move.each(feeds), strict=True)
        ]
        crops = [layers.composite.maps.crop(layers.head) for layers in frames]
        laid = self._lay.each(
            [
                {
                    "moved": np.ascontiguousarray(rgb[crop.box])[None],
                    "patch": layers.patch,
                    **crop.at,
                }
                for layers, rgb, crop in zip(frames, moved, crops, strict=True)
            ]
        )
        for crop, rgb, out in zip(crops, moved, laid, strict=True):
            rgb[crop.box] = np.asarray(out["rgb"])[0]
        return [self._cut_out(layers, rgb) for layers, rgb in zip(frames, moved, strict=True)]

    def _cut_out(self, layers: Layers, rgb: RgbImage) -> RgbImage:
        """A frame with the portrait's alpha moved as its head was; as it is where all is opaque."""
        composite = layers.composite
        if composite.alpha is None:
            return rgb
        [moved] = self._move.each([{**composite.cut_out, "flow": layers.flow}])
        alpha = composite.alpha.copy()
        shown = np.asarray(moved["moved"])[0, 0]
        alpha[composite.maps.head.box] = np.clip(shown + 0.5, 0, 255).astype(np.uint8)
        return np.dstack([rgb, alpha])


def _place_head(maps: CompositeMaps, moved: F32) -> RgbImage:
    """The frame (H, W, 3) with what moved, (3, h, w) in [0, 255] of the head's box, in its place."""
    frame = maps.rgb.copy()  # a small head: most of the portrait stands still
    for channel, plane in enumerate(
        moved + np.float32(0.5)
    ):  # plane by plane: a third of the time of one turn
        np.copyto(frame[(*maps.head.box, channel)], plane, casting="unsafe")
    return frame
