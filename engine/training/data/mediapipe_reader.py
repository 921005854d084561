"""Faces of videos read with MediaPipe's own landmarks, in place of our landmark net's."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from engine.backends import Graph
from engine.face.candidates import FaceCrop
from engine.face.detector import Face, FaceReader, eye_roll, face_box
from engine.training.data.labeller import Labeller
from engine.training.face.dataset import head_angles

SIDE = 512  # pixels a side of what MediaPipe is shown: it reads large faces better
ROOM = 1.5  # its side over that of our net's crop: MediaPipe finds the face in it by itself


class MediaPipeReader(FaceReader):
    """Our detector says where faces are and our landmark net whether they are faces; MediaPipe reads them.

    Landmarks, coefficients and angles are MediaPipe's; a face that it does not see is none.
    """

    def __init__(self, detector: Graph, landmarks: Graph, label: Labeller) -> None:
        super().__init__(detector, landmarks)
        self._label = label

    def look(self, image: Image.Image, crop: FaceCrop) -> Face:
        """Read the face of `crop` of an RGB image; its confidence is 0 where MediaPipe sees none."""
        own, wide = super().look(image, crop), replace(crop, side=crop.side * ROOM)
        found = self._label(wide.cut(image, SIDE))
        if found is None:
            return replace(own, confidence=0.0)
        landmarks = wide.place(found.landmarks[:, :2])
        yaw, pitch = head_angles(found.pose)
        return Face(
            landmarks,
            found.scores,
            yaw=yaw,
            pitch=pitch,
            roll=eye_roll(landmarks),
            confidence=own.confidence,
            box=face_box(landmarks),
        )
