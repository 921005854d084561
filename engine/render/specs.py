"""The graphs that draw, each described once: names, shapes, precision."""

from __future__ import annotations

from engine.backends import GraphSpec, TensorSpec
from engine.face.topology import POINTS
from engine.render.compositing import CROP_SIDE, GRID_X, GRID_Y

LATENT, CHANNELS = 32, 16
LINE_MAPS = 13  # two sets of line groups and the opening
KEYS = ((256, 192), (64, 256), (256, 192))  # tokens and widths of the cached keys/values


def _keys(prefix: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{prefix}{i}", (1, *shape)) for i, shape in enumerate(KEYS))


LATENTS = (1, CHANNELS, LATENT, LATENT)
_POINTS = (1, POINTS, 2)

_GUIDANCE = tuple(
    TensorSpec(f"guidance{i}", (1, width, LATENT >> i, LATENT >> i))
    for i, width in enumerate((48, 96, 128))
)
_FLOW = TensorSpec("flow", (1, 2, len(GRID_Y), len(GRID_X)))

ENROLL = GraphSpec(
    "enroll",
    (TensorSpec("crop", (1, 3, CROP_SIDE, CROP_SIDE)),),
    (TensorSpec("latents", LATENTS), TensorSpec("identity", (1, 4, 128)), *_keys("reference")),
)
WARP = GraphSpec(
    "warp",
    (
        TensorSpec("crop", (1, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("latents", LATENTS),
        TensorSpec("source", _POINTS),
        TensorSpec("target", _POINTS),
    ),
    (
        TensorSpec("warped", (1, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("warped_latents", LATENTS),
        TensorSpec("maps", (1, LINE_MAPS, LATENT, LATENT)),
        TensorSpec("opening", (1, 1, 64, 64)),
        _FLOW,
    ),
    precision="f32",
)
CARRY = GraphSpec(
    "carry",
    (
        TensorSpec("patch", (1, 4, CROP_SIDE, CROP_SIDE)),
        TensorSpec("source", _POINTS),
        TensorSpec("before", _POINTS),
        TensorSpec("target", _POINTS),
    ),
    (TensorSpec("carried", (1, 4, CROP_SIDE, CROP_SIDE)), _FLOW),
    precision="f32",
)
GUIDE = GraphSpec(
    "guide",
    (
        TensorSpec("maps", (1, LINE_MAPS, LATENT, LATENT)),
        TensorSpec("warped_latents", LATENTS),
        TensorSpec("previous_latents", LATENTS),
        TensorSpec("target", _POINTS),
        TensorSpec("placement", (1, 6)),
    ),
    _GUIDANCE,
)
DENOISE = GraphSpec(
    "denoise",
    (
        TensorSpec("z_t", LATENTS),
        TensorSpec("t", (1,)),
        TensorSpec("latents", LATENTS),
        TensorSpec("identity", (1, 4, 128)),
        *_keys("reference"),
        *_keys("previous"),
        *_GUIDANCE,
    ),
    (TensorSpec("made_latents", LATENTS), *_keys("made")),
)
DECODE = GraphSpec(
    "decode",
    (
        TensorSpec("made_latents", LATENTS),
        TensorSpec("warped", (1, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("opening", (1, 1, 64, 64)),
    ),
    (TensorSpec("patch", (1, 4, CROP_SIDE, CROP_SIDE)),),
)
_PORTRAIT = (TensorSpec("portrait", (1, 3, "H", "W")), TensorSpec("flow_scale", (2, 2)))
_AT = (TensorSpec("flow_at", (1, "a", "b", 2)), TensorSpec("base_at", (1, "a", "b", 2)))
_RGB = (TensorSpec("rgb", ("h", "w", 3), "uint8"),)
MOVE = GraphSpec("move", (*_PORTRAIT, _FLOW, *_AT), _RGB, precision="f32")
COMPOSITE = GraphSpec(
    "composite",
    (
        TensorSpec("moved", ("h", "w", 3), "uint8"),
        TensorSpec("patch", (1, 4, CROP_SIDE, CROP_SIDE)),
        TensorSpec("patch_at", (1, "h", "w", 2)),
        TensorSpec("feather", (1, 1, "h", "w")),
    ),
    _RGB,
    precision="f32",
)
SPECS = (ENROLL, WARP, CARRY, GUIDE, DENOISE, DECODE, MOVE, COMPOSITE)
