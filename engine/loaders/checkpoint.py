"""What is known about one public checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One public file or set of files, and what is known about it.

    Args:
        commercial: False when the licence forbids commercial use; None when it is unclear, which
            counts as forbidden.
        files: paths inside the repository; each may end in `*`. All of them are needed.
        bytes_about: size of the download, rounded.
        needed: the profile does not run without it.
        space: embedding space of a face encoder or identity adapter.
        adapts: it takes embeddings of that space, and makes none.
        alike: another checkpoint's file has the same name and shapes, so that only a folder of its
            own says which one it is.
        by_hand: its owner distributes it in another way than by the hub.
        address: where it is fetched from, when that is not the hub.
    """

    id: str
    what: str
    repository: str
    files: tuple[str, ...]
    bytes_about: int
    licence: str
    commercial: bool | None
    profiles: tuple[str, ...] = ("sd15",)
    needed: bool = False
    space: str = ""
    adapts: bool = False
    alike: bool = False
    by_hand: bool = False
    address: str = ""

    def command(self, models_dir: Path) -> str:
        """The command that downloads it into `models_dir`, or where to copy your own file."""
        if self.by_hand:
            return f"copy your {self.files[0]} into {models_dir / self.id}"
        if self.address:
            return f"curl -L --create-dirs -o {models_dir / self.id / self.files[0]} {self.address}"
        patterns = " ".join(f"--include '{name}'" for name in self.files)
        target = models_dir / self.repository.partition("/")[2]
        return f"hf download {self.repository} {patterns} --local-dir {target}"
