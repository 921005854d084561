"""The graphs that draw, each described once: names, shapes, precision."""

from __future__ import annotations

from engine.backends import BATCH, GraphSpec, TensorSpec
from engine.face.topology import POINTS
from engine.render.composite_maps import CROP_SIDE, GRID_X, GRID_Y

LATENT, CHANNELS = 32, 16
LINE_MAPS = 13  # two sets of line groups and the opening
KEYS = ((256, 192), (64, 256), (256, 192))  # tokens and widths of the cached keys/values


def _keys(prefix: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{prefix}{i}", (BATCH, *shape)) for i, shape in enumerate(KEYS))


LATENTS = (BATCH, CHANNELS, LATENT, LATENT)
_POINTS = (BATCH, POINTS, 2)

_GUIDANCE = tuple(
    TensorSpec(f"guidance{i}", (BATCH, width, LATENT >> i, LATENT >> i))
    for i, width in enumerate((48, 96, 128))
)
_FLOW = TensorSpec("flow", (BATCH, 2, len(GRID_Y), len(GRID_X)))

ENROLL = GraphSpec(
    "enroll",
    (TensorSpec("crop", (BATCH, 3, CROP_SIDE, CROP_SIDE)),),
    (TensorSpec("latents", LATENTS), TensorSpec("identity", (BATCH, 4, 128)), *_keys("reference")),
)
WARP = GraphSpec(
    "warp",
    (
        TensorSpec("crop", (BATCH, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("latents", LATENTS),
        TensorSpec("source", _POINTS),
        TensorSpec("level", _POINTS),
        TensorSpec("target", _POINTS),
    ),
    (
        TensorSpec("warped", (BATCH, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("warped_latents", LATENTS),
        TensorSpec("maps", (BATCH, LINE_MAPS, LATENT, LATENT)),
        TensorSpec("opening", (BATCH, 1, 64, 64)),
        _FLOW,
    ),
    precision="f32",
)
CARRY = GraphSpec(
    "carry",
    (
        TensorSpec("patch", (BATCH, 4, CROP_SIDE, CROP_SIDE)),
        TensorSpec("source", _POINTS),
        TensorSpec("before", _POINTS),
        TensorSpec("level", _POINTS),
        TensorSpec("target", _POINTS),
    ),
    (TensorSpec("carried", (BATCH, 4, CROP_SIDE, CROP_SIDE)), _FLOW),
    precision="f32",
)
GUIDE = GraphSpec(
    "guide",
    (
        TensorSpec("maps", (BATCH, LINE_MAPS, LATENT, LATENT)),
        TensorSpec("warped_latents", LATENTS),
        TensorSpec("previous_latents", LATENTS),
        TensorSpec("target", _POINTS),
        TensorSpec("placement", (BATCH, 6)),
    ),
    _GUIDANCE,
)
DENOISE = GraphSpec(
    "denoise",
    (
        TensorSpec("z_t", LATENTS),
        TensorSpec("t", (BATCH,)),
        TensorSpec("latents", LATENTS),
        TensorSpec("identity", (BATCH, 4, 128)),
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
        TensorSpec("warped", (BATCH, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("opening", (BATCH, 1, 64, 64)),
    ),
    (TensorSpec("patch", (BATCH, 4, CROP_SIDE, CROP_SIDE)),),
)
_PORTRAIT = (TensorSpec("portrait", (BATCH, 3, "H", "W")), TensorSpec("flow_scale", (BATCH, 2, 2)))
_AT = (TensorSpec("flow_at", (BATCH, "a", "b", 2)), TensorSpec("base_at", (BATCH, "a", "b", 2)))
_RGB = (TensorSpec("rgb", (BATCH, "h", "w", 3), "uint8"),)
MOVE = GraphSpec("move", (*_PORTRAIT, _FLOW, *_AT), _RGB, precision="f32")
COMPOSITE = GraphSpec(
    "composite",
    (
        TensorSpec("moved", (BATCH, "h", "w", 3), "uint8"),
        TensorSpec("patch", (BATCH, 4, CROP_SIDE, CROP_SIDE)),
        TensorSpec("down", (BATCH, "h", 2)),
        TensorSpec("across", (BATCH, "w", 2)),
    ),
    _RGB,
    precision="f32",
)
SPECS = (ENROLL, WARP, CARRY, GUIDE, DENOISE, DECODE, MOVE, COMPOSITE)
