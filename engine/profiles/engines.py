"""Which engines a configuration runs: what they are known by, and when one that is built takes over."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.config import EngineConfig
from engine.errors import AvatarError
from engine.profiles.checkpoints import few_step_lora, weights_digest

T = TypeVar("T")
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # the server says it
_PACKAGE = Path(__file__).parents[1]
_CODE = ("nets/*.py", "render/sd15_graphs.py")  # what the graphs are made by


def model_digest(config: EngineConfig, precision: str) -> str:
    """Of the full-size networks' weights and precision, how they are put together and the code that does it."""
    how = config.diffusion
    digest = hashlib.sha256(weights_digest(config).encode())
    settings = (how.random_weights, how.adapter, few_step_lora(how), how.conditioning, how.codec)
    digest.update(repr((*settings, how.injection)).encode())
    for pattern in _CODE:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.read_bytes())
    return f"{digest.hexdigest()} {precision}"


def when_there(
    find: Callable[[], T | None], take: Callable[[T], None], every_s: float = 5.0
) -> threading.Thread:
    """Look for something on a thread of its own until it is there, then hand it over, once.

    Args:
        find: gives it, or None; what it raises of ours ends the looking, and is logged in one line.
    """

    def look() -> None:
        try:
            while (found := find()) is None:
                time.sleep(every_s)
        except AvatarError as error:
            log.warning("%s; torch goes on", error)
            return
        take(found)
        log.info("the engine is there: it draws from now on")

    thread = threading.Thread(target=look, name="engine", daemon=True)
    thread.start()
    return thread
