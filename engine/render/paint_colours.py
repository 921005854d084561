"""What the painted crop's colours owe the portrait's: a grey one stays grey, teeth are its own.

The painter has seen colour photographs: on a grey or toned picture it tints lips and chin, and its teeth are
greyer than a person's. Both are measured once a portrait, and put right in each crop that is painted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.face.landmarks import lip_gap
from engine.face.topology import INNER_LOWER_LIP, INNER_UPPER_LIP
from engine.render.lab import LUMA, from_lab, to_lab
from engine.render.lid_skin import smooth

F32 = NDArray[np.float32]

# Chroma that brightness does not explain: up to here a picture is toned, from there it is coloured.
TONED = (2.8, 4.2)
SHOWN = 0.02  # of the face's height: lips parted so far show teeth
SKIN = (50, 280, 205, 425, 187, 411)  # on the cheeks
BRIGHT = 60  # percentile of what is between the lips above which it is taken for teeth
# Teeth by the skin of the cheeks, where a portrait shows none; set by eye beside people who show theirs.
LIGHTER, OF_A, OF_B, LIGHTEST = 10.0, 0.25, 0.5, 86.0
REDDEST = 0.62  # of the skin's a*: what is redder is lips or tongue
# How much lighter than painted ones teeth are, where the portrait shows them, and where it does not.
DULLER, GUESSED = 1.14, 1.1
# Redder than teeth, of a pixel's brightness: from here on, to here, it is lip or tongue.
REDDER = (0.25, 0.5)
INNER = np.array([0.9, 0.75], np.float32)  # of a mouth's width and height: where teeth are read


@dataclass(frozen=True, slots=True)
class PaintColours:
    """How the colours of one portrait's painted crops are put right. Read-only."""

    tone: F32 | None  # (3, 256) a toned portrait's colours by brightness, in [0, 255]
    toned: float  # how far the portrait is one, in [0, 1]
    teeth: F32  # (3,) colour of its teeth at brightness 1
    lighter: float  # than those that are painted
    light: float  # brightness of painted teeth in [0, 2]

    def correct(self, patch: F32, warped: F32, opening: F32) -> F32:
        """Put a painted crop right.

        Args:
            patch: (1, 4, 128, 128) as the graph `decode` gives it.
            warped: (1, 3, 128, 128) the portrait's crop, warped.
            opening: (1, 1, 64, 64) what lies between the lips.
        """
        patch = patch.copy()
        paint, trust = patch[0, :3], patch[0, 3]
        if self.tone is not None:
            shown = 1 - trust
            paint += shown  # times how far it shows, in [0, 2]
            bright = np.tensordot(LUMA, paint, 1) / np.maximum(shown, 0.02)
            toned = self.tone[:, np.clip(127.5 * bright, 0, 255).astype(np.intp)] * (shown / 127.5)
            paint += np.float32(self.toned) * (toned - paint) - shown
        if (inside := _box(opening[0, 0])) is not None:
            mouth = opening[0, 0].repeat(2, 0).repeat(2, 1)[inside]
            part = paint[:, *inside]
            part += self._whiter(part + trust[inside] * warped[0][:, *inside] + 1, mouth)
        return patch

    def _whiter(self, seen: F32, mouth: F32) -> F32:
        """What teeth lack of their colour, where they are seen: (3, h, w) in [0, 2], (h, w)."""
        bright = np.tensordot(LUMA, seen, 1)
        red = (seen[0] - seen[1]) / np.maximum(bright, 0.02) - self.teeth[0] + self.teeth[1]
        like = smooth((mouth - np.float32(0.3)) / np.float32(0.4))
        like *= smooth((bright / np.float32(self.light) - np.float32(0.45)) / np.float32(0.4))
        like *= smooth((REDDER[1] - red) / np.float32(REDDER[1] - REDDER[0]))
        wanted = np.minimum(np.float32(self.lighter) * self.teeth[:, None, None] * bright, 2)
        return np.asarray(like * (wanted - seen), np.float32)


def _box(opening: F32) -> tuple[slice, slice] | None:
    """Rows and columns of a crop twice as large where an opening (n, n) is; None without any."""
    rows, columns = (np.flatnonzero(opening.max(axis) > 0.05) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(2 * rows[0], 2 * rows[-1] + 2), slice(2 * columns[0], 2 * columns[-1] + 2)


def paint_colours(crop: F32, source: F32) -> PaintColours:
    """Measure a portrait: its crop (3, n, n) in [-1, 1], landmarks (478, 2) in crop units."""
    own = np.float32(0.5) * (np.moveaxis(crop, 0, -1) + 1)
    tone, toned = _tone(own)
    at = np.clip((source[list(SKIN)] * len(own)).astype(int), 0, len(own) - 1)
    skin = np.median(to_lab(own[at[:, 1], at[:, 0]]), 0)
    wanted, lighter = _teeth(own, source) if lip_gap(source) > SHOWN else None, DULLER
    if wanted is None or (not toned and wanted[1] > max(REDDEST * skin[1], 4.0)):
        light = min(skin[0] + LIGHTER, LIGHTEST)
        wanted, lighter = np.array([light, OF_A * skin[1], OF_B * skin[2]]), GUESSED
    wish = np.maximum(from_lab(wanted), 1e-3)
    bright = float(LUMA @ wish)
    if tone is not None:
        wish += np.float32(toned) * (tone[:, int(255 * bright)] / 255 - wish)
    teeth = np.asarray(wish / (LUMA @ wish), np.float32)
    return PaintColours(tone, toned, teeth, lighter, 2 * bright / lighter)


def _tone(picture: NDArray[Any]) -> tuple[F32 | None, float]:
    """Colours (3, 256) by brightness of a picture (n, n, 3), and how far they are all it has."""
    bright = picture @ LUMA
    tints = picture.reshape(-1, 3) - bright.reshape(-1, 1)
    shares = np.linalg.lstsq(np.vander(bright.ravel(), 4), tints, rcond=1e-6)[0]

    def coloured(light: F32) -> F32:
        return np.asarray(
            light[..., None] + np.vander(light.ravel(), 4).dot(shares).reshape(*light.shape, 3),
            np.float32,
        )

    left = (to_lab(picture) - to_lab(coloured(bright)))[..., 1:]
    chroma = float(np.sqrt(np.square(left).sum(-1).mean()))
    toned = 1 - float(smooth(np.array((chroma - TONED[0]) / (TONED[1] - TONED[0]))))
    if not toned:
        return None, 0.0
    seen = np.clip(np.linspace(0, 1, 256), *np.percentile(bright, [1, 99])).astype(np.float32)
    tint = coloured(seen).T - seen  # brightness that the picture lacks has the tint of the nearest
    return 255 * np.clip(np.linspace(0, 1, 256, dtype=np.float32) + tint, 0, 1), toned


def _teeth(picture: NDArray[Any], landmarks: F32) -> F32 | None:
    """L*, a*, b* of teeth in a picture (n, n, 3), landmarks (478, 2) in its side; None without any."""
    mouth = Image.new("L", (len(picture), len(picture)))
    edge = landmarks[[*INNER_UPPER_LIP, *INNER_LOWER_LIP[::-1]]]
    edge = (edge.mean(0) + INNER * (edge - edge.mean(0))) * len(picture)
    ImageDraw.Draw(mouth).polygon([(x, y) for x, y in edge], fill=1)
    between = to_lab(picture[np.asarray(mouth) > 0])
    if len(between) < 30:
        return None
    bright = between[between[:, 0] >= np.percentile(between[:, 0], BRIGHT)]
    return np.asarray(np.median(bright, 0), np.float32)
