"""The graphs that draw, each described once: names, shapes, precision."""

from __future__ import annotations

from engine.backends import BATCH, GraphSpec, TensorSpec
from engine.config import LARGEST_SIDE
from engine.face.topology import POINTS
from engine.render.composite_maps import CROP_SIDE, GRID_X, GRID_Y
from engine.render.holds import POINTS as HELD
from engine.render.holds import RING

LATENT, CHANNELS = 32, 16
GROUPS = 6  # of lines that are drawn of a face
LINE_MAPS = 2 * GROUPS + 1  # those of the frame and of the portrait, and the opening
KEYS = ((256, 192), (64, 256), (256, 192))  # tokens and widths of the cached keys/values


def _keys(prefix: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{prefix}{i}", (BATCH, *shape)) for i, shape in enumerate(KEYS))


LATENTS = (BATCH, CHANNELS, LATENT, LATENT)
_POINTS = (BATCH, POINTS, 2)

_GUIDANCE = tuple(
    TensorSpec(f"guidance{i}", (BATCH, width, LATENT >> i, LATENT >> i))
    for i, width in enumerate((48, 96, 128))
)

# Portraits and frames; `_TWICE` is two numbers a column.
_SIDE, _TWICE = (64, 512, LARGEST_SIDE), (128, 1024, 2 * LARGEST_SIDE)
_HELD = (
    TensorSpec("turn", (BATCH, 2, 2)),
    TensorSpec("anchors", (BATCH, HELD, 2)),
    TensorSpec("shares", (BATCH, RING)),
)
_FLOW = TensorSpec("flow", (BATCH, 2, len(GRID_Y), len(GRID_X)))

ENROLL = GraphSpec(
    "enroll",
    (TensorSpec("crop", (BATCH, 3, CROP_SIDE, CROP_SIDE)),),
    (TensorSpec("latents", LATENTS), TensorSpec("identity", (BATCH, 4, 128)), *_keys("reference")),
)
LINES = GraphSpec(
    "lines",
    (TensorSpec("source", _POINTS),),
    (TensorSpec("reference_maps", (BATCH, GROUPS, LATENT, LATENT)),),
    precision="f32",
)
WARP = GraphSpec(
    "warp",
    (
        TensorSpec("crop", (BATCH, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("latents", LATENTS),
        TensorSpec("reference_maps", (BATCH, GROUPS, LATENT, LATENT)),
        TensorSpec("source", _POINTS),
        TensorSpec("level", _POINTS),
        TensorSpec("target", _POINTS),
        *_HELD,
    ),
    (
        TensorSpec("warped", (BATCH, 3, CROP_SIDE, CROP_SIDE)),
        TensorSpec("warped_latents", LATENTS),
        TensorSpec("maps", (BATCH, LINE_MAPS, LATENT, LATENT)),
        TensorSpec("opening", (BATCH, 1, 64, 64)),
        _FLOW,
    ),
    precision="f32",
    small=True,
)
CARRY = GraphSpec(
    "carry",
    (
        TensorSpec("patch", (BATCH, 4, CROP_SIDE, CROP_SIDE)),
        TensorSpec("source", _POINTS),
        TensorSpec("before", _POINTS),
        TensorSpec("level", _POINTS),
        TensorSpec("target", _POINTS),
        *_HELD,
    ),
    (TensorSpec("carried", (BATCH, 4, CROP_SIDE, CROP_SIDE)), _FLOW),
    precision="f32",
    small=True,
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
    small=True,
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
MOVE = GraphSpec(
    "move",
    (
        TensorSpec("person", (BATCH, 4, "H", "W")),
        TensorSpec("behind", (BATCH, 3, "h", "w")),
        _FLOW,
        TensorSpec("flow_scale", (BATCH, 2, 1, 1)),
        TensorSpec("nodes", _FLOW.shape),
        TensorSpec("down", (BATCH, "h", len(GRID_Y))),
        TensorSpec("across", (BATCH, 2 * len(GRID_X), "w2")),
    ),
    (TensorSpec("moved", (BATCH, 3, "h", "w")),),
    precision="f32",
    free=(("H", *_SIDE), ("W", *_SIDE), ("h", *_SIDE), ("w", *_SIDE), ("w2", *_TWICE)),
)
COMPOSITE = GraphSpec(
    "composite",
    (
        TensorSpec("moved", (BATCH, "h", "w", 3), "uint8"),
        TensorSpec("patch", (BATCH, 4, CROP_SIDE, CROP_SIDE)),
        TensorSpec("down", (BATCH, "h", 2)),
        TensorSpec("across", (BATCH, "w", 2)),
    ),
    (TensorSpec("rgb", (BATCH, "h", "w", 3), "uint8"),),
    precision="f32",
    free=(("h", *_SIDE), ("w", *_SIDE)),
)
SPECS = (ENROLL, LINES, WARP, CARRY, GUIDE, DENOISE, DECODE, MOVE, COMPOSITE)
