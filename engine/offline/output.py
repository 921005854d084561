"""Where a video goes: looked at before any work, and held until it is whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from engine.config import FPS
from engine.enroll import fitted_size
from engine.offline.casting import Casting
from engine.offline.credentials import holds_own, is_sidecar_of, sidecar_of
from engine.offline.frame_folder import check_frame_folder
from engine.offline.mark import is_marked_video
from engine.offline.provenance import Provenance
from engine.offline.video_format import PNG_BITS, keeps_alpha, video_format
from engine.outputs import check_file, check_room, claimed


@dataclass(frozen=True, slots=True)
class Held:
    """A video, or without a suffix a folder of PNG files, to be made where nobody else writes now."""

    path: Path
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of frames."""
        return self.path.suffix == ""

    @property
    def beside(self) -> Path:
        """Folder of the frames in the making."""
        return self.path if self.is_folder else _beside(self.path)


@contextlib.contextmanager
def claim_output(out: Path, provenance: Provenance | None = None) -> Iterator[Held]:
    """Hold a place that `check_output` lets pass, so that no other run writes there meanwhile.

    Raises:
        MediaError, ConfigError: as `check_output`; or as `claimed`.
    """
    check_output(out)
    with claimed(out):
        yield Held(out, provenance or Provenance())


def check_output(out: Path) -> None:
    """Refuse a video that cannot be written, or would take the place of somebody else's files.

    Raises:
        MediaError: `out` has a suffix that no video has.
        ConfigError: as `check_file` and `check_frame_folder`.
    """
    if out.suffix == "":
        check_frame_folder(out)
        return
    video_format(out, alpha=False)
    check_file(out, is_marked_video)
    if not holds_own(out):
        check_file(sidecar_of(out), partial(is_sidecar_of, out.name))
    check_frame_folder(_beside(out))


def check_space(held: Held, casting: Casting, max_side: int, seconds: float, *, kept: bool) -> None:
    """Refuse a disk that has not the room for a video of that length.

    Args:
        max_side: pixels of the longer side, at most.
        kept: every frame lies beside the video until it is whole.

    Raises:
        ConfigError: as `check_room`.
    """
    out, image = held.path, casting.portraits[0]
    alpha = casting.alpha is not None and casting.background is None and keeps_alpha(out)
    bits = PNG_BITS if held.is_folder or kept else 0.0
    bits += 0.0 if held.is_folder else video_format(out, alpha=alpha).bits
    height, width = fitted_size(image.shape[0], image.shape[1], max_side)
    check_room(out.parent, round(bits / 8 * height * width * seconds * FPS))


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.stem}.frames")
