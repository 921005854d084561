"""ICC profiles made on the spot: matrix and gamma, as cameras and phones embed them."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_D50 = np.array([0.9642, 1.0, 0.8249])
_D65 = (0.3127, 0.3290)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
# Name -> chromaticities of red, green and blue, of white, and gamma.
SPACES = {
    "Display P3": (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), _D65, 2.2),
    "AdobeRGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), _D65, 2.19921875),
    "ProPhoto": (
        ((0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105)),
        (0.345704, 0.358540),
        1.8,
    ),
    "swapped": (tuple(SRGB_PRIMARIES[i] for i in (2, 1, 0)), _D65, 2.2),  # red and blue exchanged
}


def to_xyz(name: str) -> NDArray[np.float64]:
    """Matrix (3, 3) from the linear colours of a space to XYZ as seen in D50."""
    primaries, (x, y), _ = SPACES[name]
    columns = np.array([[px / py, 1, (1 - px - py) / py] for px, py in primaries]).T
    white = np.array([x / y, 1, (1 - x - y) / y])
    matrix = columns * np.linalg.solve(columns, white)
    adapt = np.linalg.solve(
        _BRADFORD, np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD
    )
    return np.asarray(adapt @ matrix)


def profile(name: str) -> bytes:
    """The ICC profile (version 2) of a space."""
    matrix, gamma = to_xyz(name), SPACES[name][2]
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = name.encode() + b"\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = [(b"desc", described), (b"cprt", b"text" + bytes(4) + b"none\0"), (b"wtpt", _xyz(_D50))]
    tags += [(k, _xyz(matrix[:, i])) for i, k in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(k, curve) for k in (b"rTRC", b"gTRC", b"bTRC")]
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for key, content in tags:
        table += key + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _numbers(_D50)
    return head.ljust(128, b"\0") + table + body


def _numbers(values: NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + _numbers(values)


def in_space(rgb: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """The numbers (H, W, 3) by which a file in space `name` stores the sRGB colours of `rgb` (H, W, 3)."""
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    srgb = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169],
                     [0.0139322, 0.0971045, 0.7141733]])  # fmt: skip
    own = linear @ np.linalg.solve(to_xyz(name), srgb).T
    return np.round(np.clip(own, 0, 1) ** (1 / SPACES[name][2]) * 255).astype(np.uint8)
