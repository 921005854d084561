"""Which engines a configuration runs: what they are known by, and when one that is built takes over."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.config import EngineConfig
from engine.profiles.checkpoints import few_step_lora, weights_digest

_PACKAGE = Path(__file__).parents[1]
_CODE = ("nets/*.py", "render/sd15_graphs.py")  # what the graphs are made by


def model_digest(config: EngineConfig) -> str:
    """Of the weights of the full-size networks, of how they are put together and of the code that does it."""
    how = config.diffusion
    digest = hashlib.sha256(weights_digest(config).encode())
    settings = (how.random_weights, how.adapter, few_step_lora(how), how.conditioning, how.codec)
    digest.update(repr(settings).encode())
    for pattern in _CODE:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()
