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
from engine.render.holds import holds, whole_picture
from engine.render.lifting import lift, lift_off_grey
from engine.render.specs import COMPOSITE, MOVE
from engine.types import RgbImage

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Composite:
    """A portrait made ready for compositing: its maps and layers, and what the graphs are always fed of them."""

    maps: CompositeMaps
    person: F32  # `Lifted.person`
    fixed: dict[str, Tensor]  # of `move`
    flow: dict[str, Tensor]  # of `warp` and `carry`: `turn` and what of the portrait stays
    alpha: NDArray[np.uint8] | None = None  # (H, W) of the portrait
    cut_out: dict[str, Tensor] = field(default_factory=dict)  # as `fixed`, of the alpha


@dataclass(frozen=True, slots=True)
class Layers:
    """What one frame is put together from."""

    composite: Composite
    flow: Tensor  # (1, 2, rows, columns) of the head, turned, on the grid of `GRID_Y` and `GRID_X`
    patch: Tensor  # (1, 4, 128, 128) the painted crop, and how far the moved portrait shows through
    head: Affine  # (2, 3) from places in the portrait to those in the frame, crop units
    blinking: F32 | None = None  # (1, 4, H, W) the person with the lids down, while they are


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
        maps = make_composite_maps(portrait.rgb, portrait.to_crop)
        if portrait.alpha is not None:
            lifted = lift_off_grey(portrait.rgb, portrait.alpha)
        else:
            lifted = lift(portrait.rgb, portrait.matte)
        held = whole_picture() if portrait.matte is None else holds(portrait, maps.turn)
        behind = np.ascontiguousarray(lifted.behind[(..., *maps.head.box)])
        fixed = {"person": lifted.person, "behind": behind, **maps.head.at}
        flow = {"turn": maps.turn, "anchors": held.anchors, "shares": held.shares}
        kept = {name: self._put(array) for name, array in fixed.items()}
        flow_of = {name: self._put(array) for name, array in flow.items()}
        if portrait.alpha is None:
            return Composite(maps, lifted.person, kept, flow_of)
        as_colours = np.repeat(portrait.alpha[None, None].astype(np.float32), 4, 1)
        as_colours[:, 3] = 1  # nothing lies behind it
        cut_out = {**kept, "person": self._put(as_colours)}
        return Composite(maps, lifted.person, kept, flow_of, portrait.alpha, cut_out)

    def compose(self, frames: Sequence[Layers]) -> list[RgbImage]:
        """Put one frame (H, W, 3), with alpha (H, W, 4), of each of several streams together."""
        feeds = []
        for layers in frames:
            feeds.append({**layers.composite.fixed, "flow": layers.flow})
            if layers.blinking is not None:
                feeds[-1]["person"] = layers.blinking
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
        alpha[composite.maps.head.box] = np.asarray(moved["moved"])[0, 0] + np.float32(0.5)
        return np.dstack([rgb, alpha])


def _place_head(maps: CompositeMaps, moved: F32) -> RgbImage:
    """The frame (H, W, 3) with what moved, (3, h, w) in [0, 255] of the head's box, in its place."""
    frame = maps.rgb.copy()  # a small head: most of the portrait stands still
    for channel, plane in enumerate(
        moved + np.float32(0.5)
    ):  # plane by plane: a third of the time of one turn
        np.copyto(frame[(*maps.head.box, channel)], plane, casting="unsafe")
    return frame
