"""CLIP's image encoder: in place of a face encoder, the paper's ablation, or beside one.

Its embedding says what a picture of the head is like, not whose head it is; its patches what is where.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from engine.errors import WeightsError
from engine.face.topology import OVAL
from engine.loaders.files import WrongFamily, fill, read_config, read_tensors, weight_file
from engine.types import RgbImage

F32 = NDArray[np.float32]
ROOM = 1.6  # side of the square that it is shown, over the height of the face
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's pixels in [0, 1]
SPREAD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageEncoder:
    """A loaded image encoder.

    Attributes:
        name: its embedding space, kept with whatever is trained on it.
        width: numbers in an embedding.
        side: pixels a side of the pictures it takes.
    """

    def __init__(self, net: CLIPVisionModelWithProjection, name: str) -> None:
        self._net, self.name = net, name
        self.width = int(net.config.projection_dim)
        side = net.config.image_size
        self.side = side if isinstance(side, int) else min(side or (224,))

    @torch.inference_mode()
    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Unit embedding (width,) of the head with `landmarks` (478, 2) in pixels of `rgb` (H, W, 3)."""
        pixels = np.array(head_square(rgb, landmarks, self.side), np.float32).transpose(2, 0, 1)
        embedding = self._net(pixel_values=_scaled(pixels[None])).image_embeds[0].numpy()
        return np.asarray(embedding / max(float(np.linalg.norm(embedding)), 1e-9), np.float32)

    def patches(self, picture: F32) -> F32:
        """What the last layer but one makes (P, C) of a picture (1, 3, side, side), 0 to 255."""
        return self._patches(_scaled(picture))

    def nothing(self) -> F32:
        """The patches (P, C) that stand for no picture: those of CLIP's mean colour, as IP-Adapter has it."""
        return self._patches(torch.zeros(1, 3, self.side, self.side))

    @torch.inference_mode()
    def _patches(self, scaled: Tensor) -> F32:
        seen = self._net(pixel_values=scaled, output_hidden_states=True).hidden_states[-2][0]
        out: F32 = seen.numpy()
        return out


def _scaled(pictures: F32) -> Tensor:
    """Pictures (B, 3, S, S), 0 to 255, as CLIP takes them."""
    mean, spread = (np.array(x, np.float32)[:, None, None] for x in (MEAN, SPREAD))
    return torch.from_numpy((pictures / np.float32(255) - mean) / spread)


def head_square(rgb: RgbImage, landmarks: F32, side: int) -> Image.Image:
    """The square around a head, `side` pixels a side; black beyond the edge of `rgb` (H, W, 3)."""
    oval = landmarks[list(OVAL)]
    low, high = oval.min(0), oval.max(0)
    half = ROOM * float(high[1] - low[1]) / 2
    x, y = (float(v) for v in (low + high) / 2)
    left, top, right, bottom = (round(v) for v in (x - half, y - half, x + half, y + half))
    return (
        Image.fromarray(rgb)
        .crop((left, top, right, bottom))
        .resize((side, side), Image.Resampling.BICUBIC)
    )


def load_clip_image(folder: Path, name: str) -> ClipImageEncoder:
    """The image encoder of a transformers folder, which gives embeddings of the space `name`.

    Raises:
        WeightsError: a file is missing or damaged.
        WrongFamily: it is no CLIP image encoder with a projection.
    """
    config = read_config(folder)
    if config.get("model_type") not in ("clip_vision_model", None) or "image_size" not in config:
        raise WrongFamily(f"{folder} is no CLIP image encoder; see: portraittalk models")
    try:
        source = weight_file(folder, "model")
    except WeightsError:
        source = weight_file(folder, "pytorch_model")
    tensors = {n: t for n, t in read_tensors(source).items() if not n.endswith("position_ids")}
    net = fill(CLIPVisionModelWithProjection(CLIPVisionConfig(**config)), tensors, source)
    return ClipImageEncoder(net.requires_grad_(False), name)
