"""Whether lips follow the sound: SyncNet's arithmetic, and this project's own expert by the same arithmetic.

Each window of the picture is held against the sound of 15 frames before to 15 after; distances are averaged
over the windows for each shift. D is the least of these, C the median less the least, and the offset says by
how many frames the lips are late (the sign of the public script).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from engine.evaluation.measures.cepstra import cepstra
from engine.evaluation.track import FaceTrack
from engine.face.detector import face_box
from engine.loaders.syncnet import load_syncnet
from engine.nets.sync_expert import SyncExpert, lip_shapes
from engine.nets.syncnet import FRAMES, SPECTRA

F32 = NDArray[np.float32]
REACH = 15
HOP = 640  # samples of a frame
EXPERT = Path(__file__).parents[2] / "weights" / "evaluation" / "sync_expert.safetensors"
CROP_SCALE, SIDE = 0.40, 224  # of the face box; pixels


@dataclass(frozen=True)
class Sync:
    """What the distances over the shifts say."""

    offset: int  # frames by which the lips are late
    distance: float
    confidence: float
    curve: F32  # (31,) mean distance when the lips are taken 15 frames late to 15 early


def sync_of(seen: F32, heard: F32, *, padded: bool = True) -> Sync:
    """Offset, distance and confidence of embeddings (T, d) of the picture and of the sound.

    Args:
        padded: what is before the first and after the last sound counts as an embedding of zeros, as in
            the public script; else such pairs are left out.

    Raises:
        ValueError: the shapes differ or there is no window.
    """
    if seen.shape != heard.shape or not len(seen):
        raise ValueError(f"wants (T, d) twice, got {seen.shape} and {heard.shape}")
    around = np.pad(heard, ((REACH, REACH), (0, 0)))
    at = np.arange(len(seen))
    curve = []
    for shift in range(2 * REACH + 1):
        apart = np.linalg.norm(seen - around[at + shift] + 1e-6, axis=1)
        inside = (at + shift >= REACH) & (at + shift < len(seen) + REACH)
        curve.append(float(apart.mean() if padded or not inside.any() else apart[inside].mean()))
    best = int(np.argmin(curve))
    return Sync(
        REACH - best, curve[best], float(np.median(curve)) - curve[best], np.array(curve, "f")
    )


@cache
def expert(path: Path = EXPERT) -> SyncExpert:
    """The project's own audio-lip expert."""
    net = SyncExpert()
    net.load_state_dict(load_file(path))
    return net.eval()


@torch.inference_mode()
def own_sync(track: FaceTrack, pcm: F32, net: SyncExpert | None = None) -> Sync:
    """What the project's own expert says of a face's lips and a sound (N,) at 16 kHz.

    Raises:
        ValueError: less than a second of both.
    """
    frames = min(len(track.landmarks), len(pcm) // HOP)
    if frames < 25:
        raise ValueError("wants at least a second of picture and sound")
    net = net or expert()
    spectrum = net.spectrum(torch.from_numpy(pcm[None, : frames * HOP]))
    heard, seen = net(spectrum, torch.from_numpy(lip_shapes(track.landmarks[:frames]))[None])
    return sync_of(seen[0].numpy(), heard[0].numpy(), padded=False)


def face_crops(frames: NDArray[np.uint8], track: FaceTrack) -> NDArray[np.uint8]:
    """Squares (T, 224, 224, 3) around the face, as the public pipeline cuts them.

    Its face detector is not used: the box is that of the landmarks, smoothed by the same median.
    """
    boxes = np.array([face_box(points) for points in track.landmarks])
    size = np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2
    s = _median(size)
    x, y = _median((boxes[:, 0] + boxes[:, 2]) / 2), _median((boxes[:, 1] + boxes[:, 3]) / 2)
    edge = 1 + CROP_SCALE
    found = []
    for rgb, half, cx, cy in zip(frames, s, x, y, strict=True):
        box = (cx - half * edge, cy - half, cx + half * edge, cy + half * (1 + 2 * CROP_SCALE))
        image = Image.fromarray(rgb).transform(
            (SIDE, SIDE),
            Image.Transform.EXTENT,
            box,
            Image.Resampling.BILINEAR,
            fillcolor=(110,) * 3,
        )
        found.append(np.asarray(image))
    return np.stack(found)


def _median(track: NDArray[np.float64], width: int = 13) -> NDArray[np.float64]:
    padded = np.pad(track, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), -1))


@torch.inference_mode()
def syncnet(crops: NDArray[np.uint8], pcm: F32, weights: Path) -> Sync:
    """SyncNet v2 on crops (T, 224, 224, 3) at 25 a second and their sound (N,) at 16 kHz.

    Raises:
        WeightsError: `weights` is not the public file.
        ValueError: less than six frames of both.
    """
    net, bands = load_syncnet(weights), torch.from_numpy(cepstra(pcm)).float().T
    last = min(len(crops), len(pcm) // HOP) - FRAMES
    if last < 1:
        raise ValueError("wants at least six frames of picture and sound")
    seen, heard = [], []
    for t in range(last):
        bgr = torch.from_numpy(np.ascontiguousarray(crops[t : t + FRAMES, ..., ::-1]))
        seen.append(net.forward_lip(bgr.permute(3, 0, 1, 2)[None].float()))
        window = bands[:, 4 * t : 4 * t + SPECTRA]
        window = F.pad(window, (0, SPECTRA - window.shape[1]))
        heard.append(net.forward_aud(window[None, None]))
    return sync_of(torch.cat(seen).numpy(), torch.cat(heard).numpy())
