"""Where the public checkpoints of an engine are, once their licences allow the use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.config import DiffusionSettings
from engine.errors import WeightsError
from engine.loaders.registry import LicenceError, check_licences, find, locate, require


def checkpoint_folders(needed: Sequence[str], how: DiffusionSettings) -> dict[str, Path]:
    """The folder of each checkpoint that is needed, by its name.

    Raises:
        LicenceError: a licence does not allow the use.
        WeightsError: one is missing; the message names the command that lists what brings it.
    """
    check_licences([find(name) for name in needed], how.use)
    if how.sd15_file is not None:
        _check_own_file(how.sd15_file, how)
    missing = [name for name in needed if locate(find(name), how.models_dir) is None]
    if missing:
        raise WeightsError(
            f"{len(missing)} of the {len(needed)} checkpoints of sd15 are not here: "
            f"{', '.join(missing)}; `portraittalk models --models-dir {how.models_dir}` shows the "
            "command that brings each"
        )
    return {name: require(name, how.models_dir) for name in needed}


def _check_own_file(file: Path, how: DiffusionSettings) -> None:
    """Refuse a single file of Stable Diffusion that is not there or may not be used so."""
    if not file.is_file():
        raise WeightsError(
            f"sd15_file={str(file)!r} is no file; name one .safetensors file, or leave it out and bring "
            "the folder sd15"
        )
    public = find("sd15-file")
    folder = locate(public, how.models_dir)
    if folder is not None and (folder / public.files[0]).samefile(file):
        check_licences([public], how.use)
    elif how.use == "commercial":
        raise LicenceError(
            f"the licence of {file} is not known here: use {public.files[0]} of `portraittalk models`, "
            "or set use to research"
        )
