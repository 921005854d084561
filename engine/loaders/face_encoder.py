"""Face recognition networks (ONNX) that give the embeddings identity tokens are made from.

The embedding *space* is part of an encoder: vectors of one network mean nothing to a projection that
was trained on another's, even where the widths agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from engine.errors import BackendUnavailable, WeightsError
from engine.face.landmarks import similarity
from engine.face.topology import LEFT_LIDS, RIGHT_LIDS
from engine.loaders.checkpoints import Checkpoint
from engine.loaders.files import Damaged, WrongFamily
from engine.loaders.registry import find
from engine.types import RgbImage

F32 = NDArray[np.float32]
SIDE = 112
# Where networks of this family want eyes, nose and mouth corners.
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
WIDTHS = {"sface": 128, "auraface": 512, "insightface": 512}
SCALED = {"auraface", "insightface"}  # these want (rgb - 127.5) / 127.5, the other scales inside


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
        """Unit embedding (width,) of the face with `landmarks` (478, 2) in pixels of `rgb`."""
        crop = align(rgb, landmarks)
        if self._scaled:
            crop = (crop - 127.5) / 127.5
        out: F32 = self._session.run(None, {self._input: crop})[0].reshape(-1)
        return out / np.float32(max(float(np.linalg.norm(out)), 1e-9))


def align(rgb: RgbImage, landmarks: F32) -> F32:
    """The face at the template's place: (H, W, 3) -> (1, 3, 112, 112), 0 to 255."""
    eyes = [landmarks[[p for row in lids for p in row]].mean(0) for lids in (RIGHT_LIDS, LEFT_LIDS)]
    five = np.stack([*eyes, landmarks[1], landmarks[61], landmarks[291]])
    back = similarity(TEMPLATE, five)  # crop pixels -> picture pixels
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    where = np.stack([x, y], -1) @ back[:, :2].T + back[:, 2]
    h, w = rgb.shape[:2]
    grid = torch.from_numpy((where * 2 + 1) / [w, h] - 1).float()[None]
    picture = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float()
    crop: F32 = F.grid_sample(picture, grid, align_corners=False).numpy()
    return crop


def load_face_encoder(name: str, folder: Path) -> FaceEncoder:
    """The network `name` (sface, auraface, insightface) in `folder`.

    Raises:
        WeightsError: the file is not there or damaged.
        WrongFamily: it is no 112-pixel recognition network of that width.
        BackendUnavailable: ONNX Runtime is not installed.
    """
    if name not in WIDTHS:
        raise WeightsError(f"no face encoder {name!r}; known: {', '.join(WIDTHS)}")
    checkpoint = find(name)
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
    """An identity adapter understands only the space it was trained on.

    Raises:
        WrongFamily: the two differ.
    """
    if encoder != adapter:
        raise WrongFamily(
            f"the face encoder speaks {encoder!r}, the identity adapter was trained on {adapter!r}: "
            "same-looking vectors, another meaning; use the matching encoder or train the adapter"
        )
