"""The registry of enrolled portraits."""

from __future__ import annotations

import io
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from engine.errors import AvatarError
from engine.face.image_file import Picture
from engine.types import Engine, PortraitReport, RgbImage
from server.consents import Consent

DEFAULT_ID = "default"
SHARES = 4  # subjects that fill the room together
UNUSED_S = 3600.0  # after so long another may take the place
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
    owner: str  # subject of the token that enrolled it
    identity: Any  # the engine's, opaque
    report: PortraitReport = _QUIET
    consent: Consent | None = None  # of who it shows

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
    owner: str = "",
    default: bool = False,
) -> Portrait:
    """An enrolled image (H, W, 3) with a new id."""
    return Portrait(
        id=DEFAULT_ID if default else f"p-{secrets.token_urlsafe(12)}",
        name=name,
        width=rgb.shape[1],
        height=rgb.shape[0],
        jpeg=encode_jpeg(rgb),
        owner=owner,
        identity=identity,
        report=report,
    )


def enroll_picture(
    engine: Engine,
    name: str,
    picture: Picture,
    face: int | None = None,
    *,
    owner: str = "",
    default: bool = False,
) -> Portrait:
    """Enrol what an image file shows: its face number `face`, or the largest one.

    Raises:
        PortraitRefused: there is no usable face.
    """
    identity = engine.enroll(picture.rgb, face=face)
    said = engine.report(identity)
    report = replace(said, notices=(*picture.notices, *said.notices))
    return make_portrait(name, picture.rgb, identity, report, owner=owner, default=default)


class PortraitsFull(AvatarError):
    """There is no room for a portrait that would not take away another's."""


class PortraitRegistry:
    """Enrolled portraits by id.

    Bound: `kept` uploads and the bundled one; with tokens a quarter of them for each subject.
    Overflow: the least recently used upload of the same subject goes, or one that nobody used for an
    hour; else the new one is refused. A session that uses a portrait keeps it alive for itself. Uploads
    are found by their unguessable id, by their own subject, and listed to nobody.

    Args:
        note: hears of an upload before it is `enrolled`, and before it is `deleted` or `displaced`.
    """

    def __init__(
        self,
        kept: int,
        clock: Callable[[], float] = time.monotonic,
        note: Callable[[str, Portrait], None] = lambda event, portrait: None,
    ) -> None:
        self._kept, self._clock, self._note = kept, clock, note
        self._default: Portrait | None = None
        self._uploads: OrderedDict[str, Portrait] = OrderedDict()  # the last used one last
        self._used: dict[str, float] = {}

    def check_room(self, owner: str) -> None:
        """Raises `PortraitsFull` if a portrait of `owner` would not be taken."""
        if len(self._uploads) >= self._kept and self._least_wanted(owner) is None:
            raise PortraitsFull("the portraits of others fill the server; try again later")

    def add(self, portrait: Portrait) -> None:
        """Register a portrait; raises `PortraitsFull`."""
        if portrait.id == DEFAULT_ID:
            self._default = portrait
            return
        owner = portrait.owner
        self.check_room(owner)
        own = sum(each.owner == owner for each in self._uploads.values())
        share = self._kept if not owner else max(1, self._kept // SHARES)
        self._note("enrolled", portrait)
        if own >= share or len(self._uploads) >= self._kept:
            self._forget(self._least_wanted(owner), "displaced")
        self._uploads[portrait.id] = portrait
        self._used[portrait.id] = self._clock()

    def get(self, portrait_id: str, owner: str = "") -> Portrait | None:
        """Return a portrait that `owner` may show, and mark it as used."""
        if portrait_id == DEFAULT_ID:
            return self._default
        found = self._uploads.get(portrait_id)
        if found is None or found.owner != owner:
            return None
        self._uploads.move_to_end(portrait_id)
        self._used[portrait_id] = self._clock()
        return found

    def of(self, owner: str) -> list[Portrait]:
        """The uploads of `owner`."""
        return [each for each in self._uploads.values() if each.owner == owner]

    def delete(self, portrait: Portrait) -> None:
        """Forget an upload and its consent; one that is gone already is no error."""
        if portrait.id in self._uploads:
            self._forget(portrait.id, "deleted")

    def look_up(self, portrait_id: str) -> Portrait | None:
        """Return an upload, whoever asks."""
        return self._uploads.get(portrait_id)

    def listed(self) -> list[Portrait]:
        """The portraits everybody may see."""
        return [self._default] if self._default is not None else []

    def _least_wanted(self, owner: str) -> str | None:
        """What may go for a new one of `owner`: their own oldest, or one that is long unused."""
        own = next((p.id for p in self._uploads.values() if p.owner == owner), None)
        oldest = next(iter(self._uploads), None)
        if own is None and oldest is not None and self._clock() - self._used[oldest] > UNUSED_S:
            return oldest
        return own

    def _forget(self, portrait_id: str | None, why: str) -> None:
        if portrait_id is not None:
            self._note(why, self._uploads[portrait_id])
            del self._uploads[portrait_id], self._used[portrait_id]
