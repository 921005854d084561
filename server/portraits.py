"""The registry of enrolled portraits."""

from __future__ import annotations

import io
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from engine.face.image_file import Picture
from engine.types import Engine, PortraitReport, RgbImage

DEFAULT_ID = "default"
_QUIET = PortraitReport()


def encode_jpeg(rgb: RgbImage) -> bytes:
    """Return (H, W, 3) as a JPEG file without metadata."""
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=90)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Portrait:
    """An enrolled portrait."""

    id: str
    name: str
    width: int
    height: int
    jpeg: bytes
    identity: Any  # the engine's, opaque
    report: PortraitReport = _QUIET

    def answer(self) -> dict[str, Any]:
        """What a client that enrolled it is told."""
        return {
            "id": self.id,
            "width": self.width,
            "height": self.height,
            "notices": list(self.report.notices),
            "faces": [[round(v, 4) for v in box] for box in self.report.faces],
            "face": self.report.face,
        }


def make_portrait(
    name: str,
    rgb: RgbImage,
    identity: Any,
    report: PortraitReport = _QUIET,
    *,
    default: bool = False,
) -> Portrait:
    """An enrolled image (H, W, 3) with a new id."""
    return Portrait(
        id=DEFAULT_ID if default else f"p-{secrets.token_urlsafe(12)}",
        name=name,
        width=rgb.shape[1],
        height=rgb.shape[0],
        jpeg=encode_jpeg(rgb),
        identity=identity,
        report=report,
    )


def enroll_picture(
    engine: Engine, name: str, picture: Picture, face: int | None = None, *, default: bool = False
) -> Portrait:
    """Enrol what an image file shows: its face number `face`, or the largest one.

    Raises:
        PortraitRefused: there is no usable face.
    """
    identity = engine.enroll(picture.rgb, face=face)
    said = engine.report(identity)
    report = replace(said, notices=(*picture.notices, *said.notices))
    return make_portrait(name, picture.rgb, identity, report, default=default)


class PortraitRegistry:
    """Enrolled portraits by id.

    Bound: `kept` uploads and the bundled one. Overflow: the least recently used upload goes; a
    session that uses it keeps it alive for itself. Uploads are found by their unguessable id and
    listed to nobody.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._default: Portrait | None = None
        self._uploads: OrderedDict[str, Portrait] = OrderedDict()

    def add(self, portrait: Portrait) -> None:
        """Register a portrait."""
        if portrait.id == DEFAULT_ID:
            self._default = portrait
            return
        self._uploads[portrait.id] = portrait
        while len(self._uploads) > self._kept:
            self._uploads.popitem(last=False)

    def get(self, portrait_id: str) -> Portrait | None:
        """Return a portrait and mark it as used."""
        if portrait_id == DEFAULT_ID:
            return self._default
        if portrait_id in self._uploads:
            self._uploads.move_to_end(portrait_id)
        return self._uploads.get(portrait_id)

    def listed(self) -> list[Portrait]:
        """The portraits everybody may see."""
        return [self._default] if self._default is not None else []
