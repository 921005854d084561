"""Face recognition networks (ONNX), whose embeddings become identity tokens.

The embedding *space* is part of an encoder: a projection trained on one network's embeddings cannot
use another's, even where the widths agree.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from engine.errors import BackendUnavailable, WeightsError
from engine.face.landmarks import similarity
from engine.face.topology import LEFT_LIDS, RIGHT_LIDS
from engine.loaders.checkpoint import Checkpoint
from engine.loaders.clip_image import ClipImageEncoder, load_clip_image
from engine.loaders.files import Damaged, WrongFamily
from engine.loaders.registry import find, parts_of, space_of
from engine.types import RgbImage

F32 = NDArray[np.float32]
SIDE = 112
# ArcFace's alignment (arXiv 1801.07698): eyes, nose tip and mouth corners in the 112 px crop.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
CLIP = "clip"  # an image encoder in a face encoder's place
WIDTHS = {"sface": 128, "auraface": 512, "insightface": 512, "antelopev2": 512}
# Input (rgb - 127.5) / 127.5, as InsightFace's own code feeds them; the others scale in the graph.
SCALED = {"auraface", "insightface", "antelopev2"}


class Encoder(Protocol):
    """What makes embeddings of faces; `name` is their space, `width` how many numbers they have."""

    name: str
    width: int

    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Embedding (width,) of the face with `landmarks` (478, 2) in pixels of `rgb` (H, W, 3)."""


class FaceEncoder:
    """One loaded recognition network.

    Attributes:
        name: its embedding space, kept with whatever is trained on it.
        width: numbers in an embedding.
    """

    def __init__(self, session: Any, checkpoint: Checkpoint) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._scaled = checkpoint.id in SCALED
        self.checkpoint = checkpoint
        self.name = checkpoint.space
        self.width = WIDTHS[checkpoint.id]

    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Unit embedding (width,) of the face with `landmarks` (478, 2) in pixels of `rgb` (H, W, 3)."""
        crop = align(rgb, landmarks)
        if self._scaled:
            crop = (crop - 127.5) / 127.5
        out: F32 = self._session.run(None, {self._input: crop})[0].reshape(-1)
        return out / np.float32(max(float(np.linalg.norm(out)), 1e-9))


class FaceAndPicture:
    """A face encoder, and CLIP's patches of the same face beside it, as FaceID-Plus takes them.

    Attributes:
        name: the two spaces.
        width: numbers in an embedding: the face's, then all patches'.
        nothing: patches (P, C) that stand for no picture.
    """

    def __init__(self, face: Encoder, picture: ClipImageEncoder, name: str) -> None:
        self._face, self._picture, self.name = face, picture, name
        self.nothing = picture.nothing()
        self.width = face.width + self.nothing.size

    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Embedding (width,) of the face with `landmarks` (478, 2) in pixels of `rgb` (H, W, 3)."""
        seen = self._picture.patches(align(rgb, landmarks, self._picture.side))
        return np.concatenate([self._face(rgb, landmarks), seen.reshape(-1)])


def align(rgb: RgbImage, landmarks: F32, side: int = SIDE) -> F32:
    """Crop a face aligned to the template: (H, W, 3) uint8 -> (1, 3, side, side) float32, 0 to 255.

    `landmarks` (478, 2) are in pixels of `rgb`.
    """
    eyes = [landmarks[[p for row in lids for p in row]].mean(0) for lids in (RIGHT_LIDS, LEFT_LIDS)]
    five = np.stack([*eyes, landmarks[1], landmarks[61], landmarks[291]])
    back = similarity(TEMPLATE * np.float32(side / SIDE), five)  # crop pixels -> image pixels
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    where = np.stack([x, y], -1) @ back[:, :2].T + back[:, 2]
    h, w = rgb.shape[:2]
    grid = torch.from_numpy((where * 2 + 1) / [w, h] - 1).float()[None]
    image = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float()
    crop: F32 = F.grid_sample(image, grid, align_corners=False).numpy()
    return crop


def load_encoder(name: str, folder_of: Callable[[str], Path]) -> Encoder | FaceAndPicture:
    """The face encoder `name`, of one network or of a pair of them.

    Args:
        folder_of: gives the folder of a checkpoint by its id.

    Raises:
        WeightsError, BackendUnavailable: as `load_face_encoder` does.
    """
    loaded = [load_face_encoder(part, folder_of(part)) for part in parts_of(name)]
    if len(loaded) == 1:
        return loaded[0]
    face, picture = loaded
    assert isinstance(picture, ClipImageEncoder)
    return FaceAndPicture(face, picture, space_of(name))


def load_face_encoder(name: str, folder: Path) -> FaceEncoder | ClipImageEncoder:
    """The network `name` (one of `WIDTHS`, or clip) in `folder`.

    Raises:
        WeightsError: the file is not there or damaged.
        WrongFamily: it is no 112-pixel recognition network of that width.
        BackendUnavailable: ONNX Runtime is not installed.
    """
    if name not in (*WIDTHS, CLIP):
        raise WeightsError(f"no face encoder {name!r}; known: {', '.join((*WIDTHS, CLIP))}")
    checkpoint = find(name)
    if name == CLIP:
        return load_clip_image((folder / checkpoint.files[0]).parent, checkpoint.space)
    path = folder / checkpoint.files[0]
    if not path.is_file():
        raise WeightsError(f"no file {path}; bring it with: {checkpoint.command(folder.parent)}")
    session = _open(path)
    shape, out = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    if list(shape[1:]) != [3, SIDE, SIDE] or out[-1] != WIDTHS[name]:
        raise WrongFamily(
            f"{path} takes {shape} and gives {out}; {name} takes 3 x {SIDE} x {SIDE} and gives "
            f"{WIDTHS[name]} numbers"
        )
    return FaceEncoder(session, checkpoint)


def _open(path: Path) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendUnavailable(
            "face encoders need ONNX Runtime: pip install 'portraittalk[ort]'"
        ) from error
    state = ort.capi.onnxruntime_pybind11_state
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (state.InvalidProtobuf, state.InvalidGraph, state.Fail, state.InvalidArgument) as error:
        raise Damaged(f"{path} is damaged or no ONNX file; bring it again") from error


def check_space(encoder: str, adapter: str) -> None:
    """Refuse an identity adapter that was trained on another embedding space.

    Raises:
        WrongFamily: the two differ.
    """
    if encoder != adapter:
        raise WrongFamily(
            f"the face encoder gives {encoder!r}, the identity adapter was trained on {adapter!r}: "
            "same-looking vectors, another meaning; use the matching encoder or train the adapter"
        )
