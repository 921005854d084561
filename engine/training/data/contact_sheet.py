"""What was prepared, to look at: a contact sheet, and a report of what was left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.face.head_mask import head_mask
from engine.face.placement import SIXTY_EIGHT
from engine.training.data.clips import Clip
from engine.training.data.face_masks import lower_face_mask
from engine.training.data.prepare import Record
from engine.types import RgbImage

CELL = 112  # pixels
FRAMES = 5  # of a clip, evenly spaced; then the two masks
DOT = (60, 255, 120)


def contact_sheet(clips: Sequence[Clip], path: Path, *, rows: int = 20) -> None:
    """Write `path`: a clip a row, with its 68 points, the head alone and the lower face hidden."""
    chosen = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, rows).round().astype(int))]
    strips = [np.concatenate(_row(clip), 1) for clip in chosen]
    sheet = Image.fromarray(np.concatenate(strips, 0))
    draw = ImageDraw.Draw(sheet)
    for row, clip in enumerate(chosen):
        words = f"{clip.card.person}  {len(clip)} frames  {clip.card.split}"
        draw.text((3, row * CELL + 2), words, fill=(255, 255, 0), stroke_width=1, stroke_fill=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    sheet.save(part, "PNG")
    part.replace(path)


def _row(clip: Clip) -> list[RgbImage]:
    frames = np.linspace(0, len(clip) - 1, FRAMES).round().astype(int)
    cells = [_dotted(clip, int(i)) for i in frames]
    small = np.asarray(Image.fromarray(clip.frame(0)).resize((CELL, CELL)))
    masks = (mask(clip.landmarks[0], CELL)[..., None] for mask in (head_mask, lower_face_mask))
    return [*cells, *((small * mask).astype(np.uint8) for mask in masks)]


def _dotted(clip: Clip, index: int) -> RgbImage:
    image = Image.fromarray(clip.frame(index)).resize((CELL, CELL))
    draw = ImageDraw.Draw(image)
    draw.point([tuple(p) for p in (clip.landmarks[index][list(SIXTY_EIGHT)] * CELL)], fill=DOT)
    return np.asarray(image)


def report(records: Sequence[Record]) -> str:
    """A page of text: what there is, then each video left out with the reason."""
    made = [r for r in records if r.clips]
    left = [r for r in records if not r.clips]
    lines = [
        f"{len(made)} of {len(records)} videos gave {sum(len(r.clips) for r in made)} clips, "
        f"{sum(r.frames for r in made)} frames, {sum(r.seconds for r in made) / 60:.1f} min",
        *(f"left out: {r.video}: {r.left_out}" for r in left),
    ]
    return "\n".join(lines) + "\n"
