"""The public SyncNet v2 file, `syncnet_v2.model`, which a user brings."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from engine.errors import WeightsError
from engine.nets.syncnet import SyncNet


def load_syncnet(path: Path) -> SyncNet:
    """Read the weights; nothing else that such a file may hold is run.

    Raises:
        WeightsError: no such file, damaged, or of another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read as SyncNet weights: {error}") from error
    net = SyncNet()
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} holds no SyncNet v2: {str(error)[:200]}") from error
    return net.eval()
