"""What gives a face away: its lids, teeth, lips, and the colours of a grey picture, in figures."""

from __future__ import annotations

import cv2
import numpy as np

from engine.avatar import AvatarEngine
from engine.enroll import Identity
from engine.face import arkit
from engine.face.landmarks import lip_gap
from engine.face.topology import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LEFT_BROW,
    LEFT_LIDS,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    RIGHT_BROW,
    RIGHT_LIDS,
)
from engine.motion.retarget import retarget
from engine.render.base import FrameCondition
from engine.training.data.labeller import FaceLabel, Labeller

CLOSED = 0.008  # lip gap over face height below which lips meet
STRETCH = 5  # frames within which lips are asked to meet
CHROMA = 6.0  # L*a*b* chroma above which a pixel is coloured
MOUTHS = {
    "rest": {},
    "pressed": {"mouthPressLeft": 0.2, "mouthPressRight": 0.2, "mouthRollUpper": 0.15},
    "ee": {
        "jawOpen": 0.12,
        "mouthLowerDownLeft": 0.25,
        "mouthLowerDownRight": 0.25,
        "mouthUpperUpLeft": 0.25,
        "mouthUpperUpRight": 0.25,
    },
    "ah": {"jawOpen": 0.4, "mouthLowerDownLeft": 0.15, "mouthLowerDownRight": 0.15},
}
BLINKS = (0.0, 0.3, 0.6, 1.0)


def poses(engine: AvatarEngine, identity: Identity) -> dict[str, np.ndarray]:
    """A portrait's frames (H, W, 3) with the mouths of `MOUTHS` and the eyes of `BLINKS`."""
    renderer, shown = engine._renderer, {}
    cache, noise = renderer.cold(identity.face), renderer.noise(0)
    still = np.zeros(6, np.float32)
    wanted = [(name, values, 0.0) for name, values in MOUTHS.items()]
    wanted += [(f"blink {amount}", {}, amount) for amount in BLINKS]
    for name, values, amount in wanted:
        row = np.zeros(arkit.COUNT, np.float32)
        for coefficient, value in values.items():
            row[arkit.NAMES.index(coefficient)] = value
        target = retarget(identity.neutral, engine._basis, row, still)
        condition = FrameCondition(target, np.full(2, amount, np.float32), still, noise)
        for _ in range(2):
            [(rgb, cache)] = renderer.draw([(identity.face, cache, condition)])
        shown[name] = rgb
    return shown


def lab(rgb: np.ndarray) -> np.ndarray:
    """L*, a*, b* (H, W, 3) of a picture (H, W, 3)."""
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def pixels(label: FaceLabel, rgb: np.ndarray) -> np.ndarray:
    """The landmarks (478, 2) of a label, in pixels of `rgb`."""
    return label.landmarks[:, :2] * np.array([rgb.shape[1], rgb.shape[0]], np.float32)


def lid_differences(still: np.ndarray, closed: np.ndarray, points: np.ndarray) -> list[float]:
    """L* of each closed lid less that of the skin around the eye; landmarks (478, 2) of `still`."""
    found, before, after = [], lab(still), lab(closed)
    for (upper, lower), brow in ((RIGHT_LIDS, RIGHT_BROW), (LEFT_LIDS, LEFT_BROW)):
        width = float(np.linalg.norm(points[upper[0]] - points[upper[-1]]))
        eye, hair = (np.zeros(still.shape[:2], np.uint8) for _ in range(2))
        cv2.fillPoly(eye, [np.int32(points[[*upper, *lower[::-1]]])], 1)
        cv2.polylines(hair, [np.int32(points[list(brow)])], False, 1, max(1, int(0.2 * width)))
        away = cv2.distanceTransform(1 - eye, cv2.DIST_L2, 5)
        around = (away > 0.1 * width) & (away < 0.25 * width) & (hair == 0)
        lid = np.median(after[..., 0][eye > 0])
        found.append(float(lid - np.median(before[..., 0][around])))
    return found


def blink_scores(label: Labeller, rgb: np.ndarray) -> list[float]:
    """The landmarker's scores of both closed eyes; zeros where it sees no face."""
    if (found := label(rgb)) is None:
        return [0.0, 0.0]
    return [float(found.scores[label.names.index(f"eyeBlink{side}")]) for side in ("Right", "Left")]


def teeth(rgb: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """L*, a*, b* of the lighter part of what is between the lips; None where they are not parted."""
    if lip_gap(points) < 0.02:
        return None
    mouth = np.zeros(rgb.shape[:2], np.uint8)
    edge = points[[*INNER_UPPER_LIP, *INNER_LOWER_LIP[::-1]]]
    edge = edge.mean(0) + np.float32([0.9, 0.75]) * (edge - edge.mean(0))
    cv2.fillPoly(mouth, [np.int32(edge)], 1)
    seen = lab(rgb)[mouth > 0]
    return np.median(seen[seen[:, 0] >= np.percentile(seen[:, 0], 60)], 0)


def lip_thickness(points: np.ndarray) -> np.ndarray:
    """Upper and lower lip over the face's height (2,), the middle of the mouth; landmarks (478, 2)."""
    rows = ((OUTER_UPPER_LIP, INNER_UPPER_LIP), (OUTER_LOWER_LIP, INNER_LOWER_LIP))
    height = np.linalg.norm(points[10] - points[152])
    return np.array(
        [
            np.linalg.norm(points[list(a[3:8])] - points[list(b[3:8])], axis=1).mean() / height
            for a, b in rows
        ]
    )


def coloured(rgb: np.ndarray) -> float:
    """Share of a picture's pixels that have colour."""
    return float((np.hypot(*lab(rgb)[..., 1:].transpose(2, 0, 1)) > CHROMA).mean())


def meeting(gaps: np.ndarray) -> float:
    """Share of stretches of frames within which the lips meet; gaps (N,)."""
    windows = np.lib.stride_tricks.sliding_window_view(gaps, STRETCH)
    return float((windows.min(1) < CLOSED).mean())


def appearance(engine: AvatarEngine, still: np.ndarray, label: Labeller) -> dict[str, float] | None:
    """Figures of one portrait (H, W, 3), as it is and in grey; None where the landmarker sees no face."""
    identity = engine.enroll(still)
    still = identity.face.composite.maps.rgb
    shown, found = poses(engine, identity), label(still)
    if found is None:
        return None
    points = pixels(found, still)
    figures = {
        "lid_off": max(abs(d) for d in lid_differences(still, shown["blink 1.0"], points)),
        "blink": float(np.mean(blink_scores(label, shown["blink 1.0"]))),
    }
    for name in ("rest", "pressed"):
        if (seen := label(shown[name])) is not None:
            at = pixels(seen, shown[name])
            figures[f"gap_{name}"] = float(lip_gap(at))
            thick = lip_thickness(at) / lip_thickness(points)
            figures |= {f"upper_{name}": float(thick[0]), f"lower_{name}": float(thick[1])}
    if (seen := label(shown["ee"])) is not None:
        made, own = teeth(shown["ee"], pixels(seen, shown["ee"])), teeth(still, points)
        if made is not None:
            cheeks = pixels(seen, shown["ee"])[[50, 280, 205, 425]].astype(int)
            skin = np.median(lab(shown["ee"])[cheeks[:, 1], cheeks[:, 0]], 0)
            figures |= {"teeth_l": float(made[0]), "teeth_a": float(made[1])}
            figures |= {"teeth_b": float(made[2]), "teeth_over_skin": float(made[0] - skin[0])}
            if own is not None:
                figures["teeth_off"] = float(np.linalg.norm(made - own))
    grey = cv2.cvtColor(cv2.cvtColor(still, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    figures["grey_coloured"] = max(
        coloured(rgb) for rgb in poses(engine, engine.enroll(grey)).values()
    )
    return figures


def sheets(
    engine: AvatarEngine, still: np.ndarray, label: Labeller, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two strips of one portrait (H, W, 3): its eyes closing, and its mouth as it is and as it moves.

    Raises:
        ValueError: the landmarker sees no face in it.
    """
    identity = engine.enroll(still)
    still = identity.face.composite.maps.rgb
    if (found := label(still)) is None:
        raise ValueError("the landmarker sees no face in this portrait")
    points = pixels(found, still)
    shown = poses(engine, identity)
    unit = float(np.linalg.norm(points[263] - points[33]))

    def cut(rgb: np.ndarray, middle: np.ndarray, wide: float, high: float) -> np.ndarray:
        scale = side / (wide * unit)
        size = (side, int(side * high / wide))
        shift = np.array(size) / 2 - scale * middle
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        return cv2.warpAffine(rgb, matrix, size, flags=cv2.INTER_AREA)

    eyes, mouth = points[[33, 263]].mean(0), points[[13, 14, 17]].mean(0)
    lids = [cut(shown[f"blink {amount}"], eyes, 1.4, 0.6) for amount in BLINKS]
    mouths = [cut(rgb, mouth, 1.1, 0.8) for rgb in (still, *(shown[name] for name in MOUTHS))]
    return np.concatenate(lids, 1), np.concatenate(mouths, 1)
