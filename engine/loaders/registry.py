"""Finds public checkpoints on this machine and names the commands that download missing ones.

No torch, no network: files are looked for in the folder of `--models-dir` and in the hub's own cache.
Nothing is downloaded automatically; each row names the command that does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import ConfigError, WeightsError
from engine.loaders.checkpoint import Checkpoint
from engine.loaders.checkpoints import CHECKPOINTS, MB, PAIRS, PROFILES

Use = Literal["commercial", "research"]
OWN_FOLDERS = {"insightface": Path(".insightface/models")}  # of a checkpoint's owner, in your home


class LicenceError(WeightsError):
    """A checkpoint's licence does not allow what this installation is used for."""


def find(name: str) -> Checkpoint:
    """The checkpoint called `name`.

    Raises:
        ConfigError: there is none.
    """
    for checkpoint in CHECKPOINTS:
        if checkpoint.id == name:
            return checkpoint
    known = ", ".join(c.id for c in CHECKPOINTS)
    raise ConfigError(f"no checkpoint {name!r}; known: {known}")


def parts_of(face_encoder: str) -> tuple[str, ...]:
    """Ids of the checkpoints that make up a face encoder: itself, or two that are used together."""
    return PAIRS.get(face_encoder, (face_encoder,))


def space_of(face_encoder: str) -> str:
    """The embedding space of a face encoder."""
    return "+".join(find(part).space for part in parts_of(face_encoder))


def check_licences(checkpoints: Iterable[Checkpoint], use: Use) -> None:
    """Refuse, before anything is loaded, checkpoints whose licence does not allow `use`.

    Raises:
        LicenceError: `use` is "commercial" and a licence forbids it or is unclear.
    """
    if use == "research":
        return
    for checkpoint in checkpoints:
        if not checkpoint.commercial:
            why = "forbids commercial use" if checkpoint.commercial is False else "is unclear"
            raise LicenceError(
                f"the licence of {checkpoint.id} ({checkpoint.licence}) {why}: leave it out, or "
                "set use to research"
            )


def locate(checkpoint: Checkpoint, models_dir: Path, *, cache: Path | None = None) -> Path | None:
    """The folder that holds every file of `checkpoint`, or None.

    Looked for in this order: `models_dir/<repository name>`, `models_dir/<id>`, `models_dir`
    itself unless the checkpoint is one of several alike, the folder in which its owner's own
    software keeps it, then the cache of the hub's own client.

    Args:
        cache: the hub's cache, when it is not the one that its client uses.
    """
    owner, _, name = checkpoint.repository.partition("/")
    folders = [models_dir / name, models_dir / checkpoint.id]
    folders += [] if checkpoint.alike else [models_dir]
    folders += [Path.home() / OWN_FOLDERS[owner] / name] if owner in OWN_FOLDERS else []
    for folder in folders:
        if _holds(folder, checkpoint):
            return folder
    cached = _cached(checkpoint, cache)
    return cached if cached is not None and _holds(cached, checkpoint) else None


def _cached(checkpoint: Checkpoint, cache: Path | None) -> Path | None:
    """Folder of a repository in the hub client's cache; nothing is downloaded."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:  # without the extra `diffusion` there is no client, nor a use for its files
        return None
    try:
        return Path(
            snapshot_download(checkpoint.repository, cache_dir=cache, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None


def _holds(folder: Path, checkpoint: Checkpoint) -> bool:
    """Whether all files are there; weights may be the full-precision variant or the other type."""
    return all(
        any(path.is_file() for name in _variants(pattern) for path in folder.glob(name))
        for pattern in checkpoint.files
    )


def _variants(pattern: str) -> set[str]:
    names = {pattern, pattern.replace(".fp16.", ".")}
    return names | {n.removesuffix(".bin") + ".safetensors" for n in names if n.endswith(".bin")}


def require(name: str, models_dir: Path, *, cache: Path | None = None) -> Path:
    """The folder of checkpoint `name`.

    Raises:
        WeightsError: it is missing; the message holds the command that downloads it.
    """
    checkpoint = find(name)
    folder = locate(checkpoint, models_dir, cache=cache)
    if folder is None:
        raise WeightsError(
            f"{name} ({checkpoint.what}) is not here; bring it with: {checkpoint.command(models_dir)}"
        )
    return folder


def one_file(name: str, models_dir: Path) -> Path:
    """The single file of checkpoint `name`; it may also be there as .safetensors.

    Raises:
        WeightsError: it is missing; the message holds the command that downloads it.
    """
    path = require(name, models_dir) / find(name).files[0]
    return path if path.is_file() else path.with_suffix(".safetensors")


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One line of `portraittalk models`."""

    id: str
    file: str
    size: str
    licence: str
    present: bool
    needed: bool
    command: str


def rows(
    models_dir: Path, *, profile: str = "sd15", cache: Path | None = None
) -> list[CheckpointRow]:
    """Checkpoints that `profile` can use, one table row each, with whether they are installed.

    Raises:
        ConfigError: there is no such profile.
    """
    if profile not in PROFILES:
        raise ConfigError(f"no profile {profile!r}; known: {', '.join(PROFILES)}")
    return [
        CheckpointRow(
            c.id,
            f"{c.repository}/{c.files[-1] if len(c.files) <= 2 else c.files[0].partition('/')[0]}",
            f"{c.bytes_about / MB:,.0f} MB",
            c.licence,
            locate(c, models_dir, cache=cache) is not None,
            c.needed,
            c.command(models_dir),
        )
        for c in CHECKPOINTS
        if profile in c.profiles
    ]
