"""Where the networks of the measures lie, and which of the costly ones are run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _syncnet() -> Path | None:
    given = os.environ.get("PORTRAITTALK_SYNCNET")
    return Path(given) if given else None


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        store: folder of downloaded packages (LPIPS, Inception, SFace).
        syncnet: the public `syncnet_v2.model`; by default what PORTRAITTALK_SYNCNET names. Without it Sync-C
            and Sync-D are not run.
        vgg_every: LPIPS by VGG16 is taken of every so many frames: it costs a second of a core each. 0: so many
            that larger frames cost no more than those of 256 x 256 do, of which it is every fifth.
        kept: folder of what was read before; None: nothing is kept.
    """

    store: Path = Path("runs/cache")
    syncnet: Path | None = field(default_factory=_syncnet)
    vgg_every: int = 0
    kept: Path | None = None
