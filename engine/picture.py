"""The eye's counterpart: graphs that draw, and the numpy that ties a portrait to them.

Four graphs share the work of a frame: `enroll` once a portrait; then `warp` (geometry, always fp32),
`paint` (AnimateNet, IdentityNet x steps, decoder) and `compose` (the portrait at its own resolution,
moved by the flow, with the painted window laid in where the warp is not to be trusted).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.backends import Graph, GraphSpec, TensorSpec
from engine.landmarks import Affine, apply, invert
from engine.topology import POINTS
from engine.types import RgbImage

F32 = NDArray[np.float32]

WINDOW, LATENT, CHANNELS = 128, 32, 16
LINE_MAPS = 13  # two sets of line groups and the opening
KEYS = ((256, 192), (64, 256), (256, 192))  # tokens and widths of the cached keys/values

# Lines of the flow grid in window units: dense over the face, sparse over hair and shoulders.
GRID_X = np.concatenate(
    [np.linspace(-1.7, -0.45, 9), np.linspace(-0.35, 1.35, 46), np.linspace(1.45, 2.7, 9)]
).astype(np.float32)
GRID_Y = np.concatenate(
    [np.linspace(-2.5, -1.35, 8), np.linspace(-1.25, 1.25, 64), np.linspace(1.35, 2.4, 8)]
).astype(np.float32)
# The finer field of the eyelids.
EYES_X = np.linspace(-0.15, 1.15, 112).astype(np.float32)
EYES_Y = np.linspace(-0.95, -0.05, 80).astype(np.float32)
# Points that stay where they are: the frame of everything the head does not carry.
ANCHORS = np.array(
    [(x, y) for y in (-2.45, 2.0) for x in np.linspace(-1.5, 2.5, 9)]
    + [(x, y) for x in (-1.5, 2.5) for y in np.linspace(-2.0, 1.7, 8)]
    + [(x, 1.75) for x in (-1.0, -0.5, 1.5, 2.0)],
    np.float32,
)


def _keys(prefix: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{prefix}{i}", (1, *shape)) for i, shape in enumerate(KEYS))


_LATENTS = (1, CHANNELS, LATENT, LATENT)
_POINTS = (1, POINTS, 2)

ENROLL = GraphSpec(
    "enroll",
    (TensorSpec("window", (1, 3, WINDOW, WINDOW)),),
    (TensorSpec("latents", _LATENTS), TensorSpec("identity", (1, 4, 128)), *_keys("reference")),
)
WARP = GraphSpec(
    "warp",
    (
        TensorSpec("window", (1, 3, WINDOW, WINDOW)),
        TensorSpec("latents", _LATENTS),
        TensorSpec("source", _POINTS),
        TensorSpec("target", _POINTS),
        TensorSpec("blink", (1, 2)),
    ),
    (
        TensorSpec("warped", (1, 3, WINDOW, WINDOW)),
        TensorSpec("warped_latents", _LATENTS),
        TensorSpec("maps", (1, LINE_MAPS, LATENT, LATENT)),
        TensorSpec("opening", (1, 1, 64, 64)),
        TensorSpec("flow", (1, 2, len(GRID_Y), len(GRID_X))),
        TensorSpec("lids", (1, 1, len(EYES_Y), len(EYES_X))),
    ),
    precision="f32",
)
PAINT = GraphSpec(
    "paint",
    (
        TensorSpec("noise", _LATENTS),
        TensorSpec("latents", _LATENTS),
        TensorSpec("identity", (1, 4, 128)),
        *_keys("reference"),
        TensorSpec("previous_latents", _LATENTS),
        *_keys("previous"),
        TensorSpec("warped", (1, 3, WINDOW, WINDOW)),
        TensorSpec("warped_latents", _LATENTS),
        TensorSpec("maps", (1, LINE_MAPS, LATENT, LATENT)),
        TensorSpec("opening", (1, 1, 64, 64)),
        TensorSpec("target", _POINTS),
        TensorSpec("placement", (1, 6)),
    ),
    (TensorSpec("patch", (1, 4, WINDOW, WINDOW)), TensorSpec("made_latents", _LATENTS), *_keys("made")),
)
COMPOSE = GraphSpec(
    "compose",
    (
        TensorSpec("portrait", (1, 3, "H", "W")),
        TensorSpec("flow", (1, 2, len(GRID_Y), len(GRID_X))),
        TensorSpec("lids", (1, 1, len(EYES_Y), len(EYES_X))),
        TensorSpec("patch", (1, 4, WINDOW, WINDOW)),
        TensorSpec("flow_at", (1, "h", "w", 2)),
        TensorSpec("lids_at", (1, "h", "w", 2)),
        TensorSpec("base_at", (1, "h", "w", 2)),
        TensorSpec("patch_at", (1, "h", "w", 2)),
        TensorSpec("flow_scale", (2, 2)),
        TensorSpec("feather", (1, 1, "h", "w")),
    ),
    (TensorSpec("rgb", ("h", "w", 3), "uint8"),),
    precision="f32",
)


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where one portrait's pixels find their flow and their painted window. Read-only."""

    portrait: F32  # (1, 3, H, W) in [0, 255]
    rgb: RgbImage  # (H, W, 3) the portrait itself
    box: tuple[int, int, int, int]  # left, top, right, bottom of what can move
    flow_at: F32  # (1, h, w, 2) of the moving box, for grid sampling
    lids_at: F32
    base_at: F32
    patch_at: F32
    flow_scale: F32  # (2, 2) window units -> sampling units of the portrait
    feather: F32  # (1, 1, h, w) 1 inside the window, 0 at its border and outside


def _sampling(pixel: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return (2 * pixel / size - 1).astype(np.float32)


def _look_up(unit: F32, x: F32, y: F32) -> F32:
    """Sampling positions (1, h, w, 2) of window points (h, w, 2) in a field with lines x and y."""
    column = np.interp(unit[..., 0], x, np.arange(len(x)) + 0.5)
    row = np.interp(unit[..., 1], y, np.arange(len(y)) + 0.5)
    return np.stack([_sampling(column, len(x)), _sampling(row, len(y))], -1)[None]


def make_canvas(rgb: RgbImage, to_window: Affine) -> Canvas:
    """Prepare the look-up maps of a portrait.

    Args:
        rgb: (H, W, 3).
        to_window: affine from pixels of `rgb` to window units.
    """
    height, width = rgb.shape[:2]
    corners = np.array(
        [(x, y) for x in (GRID_X[0], GRID_X[-1]) for y in (GRID_Y[0], GRID_Y[-1])], np.float32
    )
    reach = apply(invert(to_window), corners)
    left, top = np.clip(np.floor(reach.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(reach.max(0)), 0, (width, height)).astype(int)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
    unit = apply(to_window, np.stack([x, y], -1))  # (h, w, 2)
    edge = np.abs(unit - 0.5).max(-1)  # 0.5 on the border of the window
    feather = np.clip((0.5 - edge) / 0.1, 0, 1)
    back = invert(to_window)[:, :2]
    return Canvas(
        portrait=np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32),
        rgb=rgb,
        box=(int(left), int(top), int(right), int(bottom)),
        flow_at=_look_up(unit, GRID_X, GRID_Y),
        lids_at=_look_up(unit, EYES_X, EYES_Y),
        base_at=np.stack([_sampling(x, width), _sampling(y, height)], -1)[None],
        patch_at=(unit * 2 - 1)[None].astype(np.float32),
        flow_scale=np.ascontiguousarray((back * np.array([[2 / width], [2 / height]])).T, np.float32),
        feather=(feather * feather * (3 - 2 * feather))[None, None].astype(np.float32),
    )


@dataclass(frozen=True, slots=True)
class Face:
    """A portrait enrolled for drawing: its window, what the networks keep of it, its canvas."""

    window: F32  # (1, 3, 128, 128) in [-1, 1]
    source: F32  # (1, 478, 2) landmarks in window units
    kept: dict[str, F32]  # latents, identity, reference keys/values
    canvas: Canvas


@dataclass(slots=True)
class FrameCache:
    """What a frame hands to the next: its latents and keys/values of the last denoising step."""

    latents: F32
    keys: tuple[F32, ...]


class PictureGraphs:
    """The four graphs, and the one order in which they draw a frame."""

    def __init__(self, enroll: Graph, warp: Graph, paint: Graph, compose: Graph) -> None:
        self._enroll, self._warp, self._paint, self._compose = enroll, warp, paint, compose

    def enroll(self, window: F32, source: F32, canvas: Canvas) -> Face:
        """Run the once-a-portrait part."""
        return Face(window, source, self._enroll(window=window), canvas)

    @staticmethod
    def cold(face: Face) -> FrameCache:
        """The cache before the first frame: the portrait itself."""
        return FrameCache(
            face.kept["latents"], tuple(face.kept[f"reference{i}"] for i in range(len(KEYS)))
        )

    def draw(
        self,
        face: Face,
        cache: FrameCache,
        target: F32,
        blink: F32,
        placement: F32,
        noise: F32,
    ) -> tuple[RgbImage, FrameCache]:
        """Draw one frame.

        Args:
            target: landmarks (478, 2) in window units, eyes open.
            blink: (2,) how far the right and the left eye close, in [0, 1].
            placement: (6,) head pose.
            noise: (1, 16, 32, 32) of the stream.
        """
        points = target[None]
        geometry = self._warp(
            window=face.window,
            latents=face.kept["latents"],
            source=face.source,
            target=points,
            blink=blink[None],
        )
        fields = geometry.pop("flow"), geometry.pop("lids")
        painted = self._paint(
            noise=noise,
            **face.kept,
            previous_latents=cache.latents,
            **{f"previous{i}": key for i, key in enumerate(cache.keys)},
            **geometry,
            target=points,
            placement=placement[None],
        )
        rgb = self.compose(face.canvas, *fields, painted["patch"])
        return rgb, FrameCache(
            painted["made_latents"], tuple(painted[f"made{i}"] for i in range(len(KEYS)))
        )

    def compose(self, canvas: Canvas, flow: F32, lids: F32, patch: F32) -> RgbImage:
        """Move the portrait by `flow` and `lids` and lay the painted `patch` in."""
        moved = self._compose(
            portrait=canvas.portrait,
            flow=flow,
            lids=lids,
            patch=patch,
            flow_at=canvas.flow_at,
            lids_at=canvas.lids_at,
            base_at=canvas.base_at,
            patch_at=canvas.patch_at,
            flow_scale=canvas.flow_scale,
            feather=canvas.feather,
        )["rgb"]
        left, top, right, bottom = canvas.box
        frame = canvas.rgb.copy()
        frame[top:bottom, left:right] = moved
        return frame
