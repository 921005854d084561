"""Where the public checkpoints of an engine are, once their licences allow the use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.config import DiffusionSettings
from engine.errors import WeightsError
from engine.loaders.registry import check_licences, find, locate, require


def checkpoint_folders(needed: Sequence[str], how: DiffusionSettings) -> dict[str, Path]:
    """The folder of each checkpoint that is needed, by its name.

    Raises:
        LicenceError: a licence does not allow the use.
        WeightsError: one is missing; the message names the command that lists what brings it.
    """
    check_licences([find(name) for name in needed], how.use)
    missing = [name for name in needed if locate(find(name), how.models_dir) is None]
    if missing:
        raise WeightsError(
            f"{len(missing)} of the {len(needed)} checkpoints of sd15 are not here: "
            f"{', '.join(missing)}; `portraittalk models --models-dir {how.models_dir}` shows the "
            "command that brings each"
        )
    return {name: require(name, how.models_dir) for name in needed}
