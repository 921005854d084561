"""LPIPS of frames that belong to each other, and of frames that follow each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from engine.evaluation.measures.pixels import batches
from engine.loaders.lpips import Lpips

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]
AT_ONCE = 4  # frames of 256 x 256 in a batch


@cache
def _network(store: Path, net: Literal["alexnet", "vgg16"]) -> Lpips:
    network: Lpips = Lpips(store, net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@torch.inference_mode()
def lpips(
    generated: U8, real: U8, store: Path, net: Literal["alexnet", "vgg16"] = "alexnet"
) -> F64:
    """LPIPS v0.1 of each of frames (T, H, W, 3) -> (T,), at their own size.

    Args:
        store: where downloaded weights lie.
    """
    network = _network(store, net)
    found = [
        network(a / 127.5 - 1, b / 127.5 - 1)
        for a, b in zip(batches(generated, AT_ONCE), batches(real, AT_ONCE), strict=True)
    ]
    return torch.cat(found).double().numpy()


@torch.inference_mode()
def lpips_to_next(frames: U8, store: Path) -> F64:
    """LPIPS (AlexNet) of each frame (T, H, W, 3) and the one after it -> (T - 1,)."""
    network = _network(store, "alexnet")
    found, last = [], None
    for batch in batches(frames, AT_ONCE):
        now = list(network.layers(batch / 127.5 - 1))
        if last is not None:
            found.append(network.apart(last, [x[:1] for x in now]))
        if len(batch) > 1:
            found.append(network.apart([x[:-1] for x in now], [x[1:] for x in now]))
        last = [x[-1:] for x in now]
    return torch.cat(found).double().numpy() if found else np.zeros(0)
