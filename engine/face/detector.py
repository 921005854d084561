"""A portrait -> its face: 478 landmarks, 52 expression scores, head angles. numpy + Pillow.

Two small networks: the face detector says where faces are; the landmark net reads an aligned crop. It
runs once on the face detector's box and then on the crop that its own landmarks align (`REFINEMENTS`).

Coordinates are continuous: pixel (column i, row j) covers [i, i + 1) x [j, j + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.backends import BATCH, Graph, GraphSpec, TensorSpec
from engine.errors import PortraitRefused
from engine.face.candidates import FaceCrop, decode_cells, tiles
from engine.face.topology import POINTS
from engine.types import RgbImage

F32 = NDArray[np.float32]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

DETECTOR_SIDE = 160  # pixels of the face detector's square image
DETECTOR_CELLS = 20
CROP = 192  # pixels of the landmark net's crop
CROP_SCALE = 1.35  # crop side over face side
REFINEMENTS = 2

MAX_CANDIDATES = 6
# On real portraits the face detector's score of the face is 0.38-0.86 and the landmark net's presence,
# once aligned, over 0.995; almost all that is no face stays under 0.9: the landmark net decides.
MIN_DETECTOR = 0.25  # below this a cell is no candidate
WORTH_ALIGNING = 0.20  # presence in the rough crop below which a candidate is dropped
MIN_PRESENCE = 0.97  # presence in the aligned crop of a face
MIN_FACE_PX = 80  # face side below which lips and eyelids are too few pixels
RIVAL_SIDE = 0.40  # a second face counts from this part of the first one's side
MAX_YAW = math.radians(40)
PARTS = (1, 2, 4)  # an image is searched whole, then in squares of a half, then of a quarter
MIN_TILE = 4 * MIN_FACE_PX  # of a smaller square the detector sees enough from farther away

SCORE_NAMES: tuple[str, ...] = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft",
    "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip

DETECTOR = GraphSpec(
    "detector",
    (TensorSpec("picture", (BATCH, DETECTOR_SIDE, DETECTOR_SIDE, 3), "uint8"),),
    (TensorSpec("cells", (BATCH, 4, DETECTOR_CELLS, DETECTOR_CELLS)),),
)
LANDMARKS = GraphSpec(
    "landmarks",
    (TensorSpec("crop", (BATCH, CROP, CROP, 3), "uint8"),),
    (
        TensorSpec("landmarks", (BATCH, POINTS, 2)),
        TensorSpec("scores", (BATCH, len(SCORE_NAMES))),
        TensorSpec("pose", (BATCH, 2)),
        TensorSpec("presence", (BATCH, 1)),
    ),
    precision="f32",  # a bf16 coordinate is off by up to half a pixel
)


@dataclass(frozen=True, slots=True)
class Face:
    """The face of a portrait."""

    landmarks: F32  # (478, 2) x and y in pixels of the image
    scores: F32  # (52,) in [0, 1], named by SCORE_NAMES
    yaw: float  # radians; 0 looks at the camera, positive to the image's right
    pitch: float  # radians; positive looks down
    roll: float  # radians; positive tilts clockwise in the image
    confidence: float  # [0, 1]
    box: Box  # of the landmarks

    @property
    def side(self) -> float:
        """The longer side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a portrait."""

    face: Face  # the one that talks
    boxes: tuple[Box, ...]  # of every face that could, from left to right
    number: int  # of `face` among them, from 1


def eye_roll(landmarks: F32) -> float:
    """Angle of the line through the eyes, radians, from landmarks (478, 2) in square units."""
    right = landmarks[33] + landmarks[133]
    left = landmarks[263] + landmarks[362]
    return math.atan2(left[1] - right[1], left[0] - right[0])


def aligned_crop(landmarks: F32) -> FaceCrop:
    """The crop in which landmarks (478, 2) stand upright, in the middle, at the usual size."""
    roll = eye_roll(landmarks)
    c, s = math.cos(roll), math.sin(roll)
    turn = np.array([[c, s], [-s, c]], np.float32)
    upright = landmarks @ turn.T
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2 @ turn
    return FaceCrop(float(x), float(y), float((high - low).max()) * CROP_SCALE, roll)


def face_box(landmarks: F32) -> Box:
    """Left, top, right, bottom of landmarks (478, 2)."""
    (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
    return float(left), float(top), float(right), float(bottom)


class FaceReader:
    """Reads the face of a portrait, or says why it cannot."""

    def __init__(self, detector: Graph, landmarks: Graph) -> None:
        self._detector = detector
        self._landmarks = landmarks

    def find(self, rgb: RgbImage, threshold: float = MIN_DETECTOR) -> list[tuple[float, FaceCrop]]:
        """Candidates in an image (H, W, 3): score in [0, 1] and square in pixels, best first."""
        height, width = rgb.shape[:2]
        whole = FaceCrop(width / 2, height / 2, float(max(height, width)))
        small = whole.cut(Image.fromarray(rgb), DETECTOR_SIDE)
        cells = self._detector(picture=small[None])["cells"][0]
        left, top = whole.x - whole.side / 2, whole.y - whole.side / 2
        return [
            (score, FaceCrop(left + w.x * whole.side, top + w.y * whole.side, w.side * whole.side))
            for score, w in decode_cells(cells, threshold)
        ]

    def look(self, image: Image.Image, crop: FaceCrop) -> Face:
        """Run the landmark net once on `crop` of an RGB image."""
        out = self._landmarks(crop=crop.cut(image, CROP)[None])
        landmarks = crop.place(out["landmarks"][0])
        yaw, pitch = out["pose"][0]
        return Face(
            landmarks,
            out["scores"][0],
            yaw=float(yaw),
            pitch=float(pitch),
            roll=eye_roll(landmarks),
            confidence=float(1 / (1 + np.exp(-np.float64(out["presence"][0, 0])))),
            box=face_box(landmarks),
        )

    def faces(self, rgb: RgbImage) -> list[Face]:
        """Every face of an image (H, W, 3) that both networks accept, largest first, refined.

        Where none is found at first, as in a full figure, parts of the image are searched from nearer.
        """
        image = Image.fromarray(rgb)
        sides = max(rgb.shape[:2])
        for parts in [n for n in PARTS if n == 1 or sides / n >= MIN_TILE]:
            spots = [
                spot
                for tile in tiles(rgb.shape[1], rgb.shape[0], parts)
                for spot in self._spots(rgb, tile)
            ]
            if found := self._accepted(image, sorted(spots, key=lambda spot: -spot[0])):
                return sorted(found, key=lambda face: -face.side)
        return []

    def _spots(
        self, rgb: RgbImage, tile: tuple[int, int, int, int]
    ) -> list[tuple[float, FaceCrop]]:
        """Candidates in a part of an image, in pixels of the whole."""
        left, top, right, bottom = tile
        return [
            (score, FaceCrop(crop.x + left, crop.y + top, crop.side))
            for score, crop in self.find(rgb[top:bottom, left:right])
        ]

    def _accepted(self, image: Image.Image, spots: list[tuple[float, FaceCrop]]) -> list[Face]:
        """The candidates, best first, that the landmark net takes for faces."""
        found: list[Face] = []
        for _, square in spots[:MAX_CANDIDATES]:
            face = self.look(image, FaceCrop(square.x, square.y, square.side * CROP_SCALE))
            for _ in range(REFINEMENTS):
                if face.confidence < WORTH_ALIGNING:
                    break
                face = self.look(image, aligned_crop(face.landmarks))
            if face.confidence >= MIN_PRESENCE and all(_apart(face, other) for other in found):
                found.append(face)
        return found

    def read(self, rgb: RgbImage, number: int | None = None) -> Reading:
        """Read the portrait `rgb` (H, W, 3): its face `number`, or the largest one.

        Raises:
            PortraitRefused: `no_face`, `no_such_face`, `face_too_small` or `turned_away`.
        """
        found = self.faces(rgb)
        if not found:
            raise PortraitRefused(
                "no_face",
                "No face was found. One face is needed, seen from the front and well lit; "
                "please try another picture.",
            )
        rivals = [face for face in found if face.side >= RIVAL_SIDE * found[0].side]
        faces = sorted(rivals, key=lambda face: face.box[0] + face.box[2])
        if number is not None and not 1 <= number <= len(faces):
            are = "is 1 face" if len(faces) == 1 else f"are {len(faces)} faces"
            raise PortraitRefused(
                "no_such_face", f"There is no face {number}: there {are}, counted from the left."
            )
        largest = next(i for i, face in enumerate(faces) if face is found[0])
        chosen = largest if number is None else number - 1
        _check(faces[chosen])
        return Reading(faces[chosen], tuple(face.box for face in faces), chosen + 1)


def _check(face: Face) -> None:
    """Refuse a face that cannot talk well."""
    if face.side < MIN_FACE_PX:
        raise PortraitRefused(
            "face_too_small",
            f"The face is {face.side:.0f} pixels high. At least {MIN_FACE_PX} are needed; "
            "please use a larger picture or one taken from nearer.",
        )
    if abs(face.yaw) > MAX_YAW:
        raise PortraitRefused(
            "turned_away",
            f"The face is turned {math.degrees(abs(face.yaw)):.0f} degrees to the side. Up to "
            f"{math.degrees(MAX_YAW):.0f} work; please use a picture that looks at the camera.",
        )


def _apart(a: Face, b: Face) -> bool:
    """Whether two readings are of different faces: their middles are not within one another."""
    distance = np.linalg.norm(a.landmarks.mean(0) - b.landmarks.mean(0))
    return bool(distance > 0.5 * min(a.side, b.side))
