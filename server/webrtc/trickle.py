"""ICE candidates that come after the answer, as an SDP fragment (RFC 8840)."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from aiortc import RTCPeerConnection

from server.webrtc.signaling import BadSdp, add_candidate

_LINE = re.compile(r"[a-z]=.+")
_MEDIA = re.compile(r"m=(audio|video|application) \d+ \S+.*")
MAX_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Fragment:
    """Candidates, each with the media it is for, and the name of the negotiation they belong to."""

    ufrag: str | None
    candidates: tuple[tuple[str, str | None], ...]  # as `candidate:...`, mid


def read_fragment(text: str) -> Fragment:
    """Read a fragment.

    Raises:
        BadSdp: it is none, or too long.
    """
    ufrag, mid = None, None
    candidates: list[tuple[str, str | None]] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if not _LINE.fullmatch(line) or (line.startswith("m=") and not _MEDIA.fullmatch(line)):
            raise BadSdp(f"the fragment has a line that is no SDP: {line[:100]!r}")
        name, _, value = line.removeprefix("a=").partition(":")
        if line.startswith("m="):
            mid = None
        elif name == "mid":
            mid = value
        elif name == "ice-ufrag":
            ufrag = value
        elif name == "candidate":
            candidates.append((f"candidate:{value}", mid))
    if ufrag is None and not candidates and "a=end-of-candidates" not in text:
        raise BadSdp("the fragment says nothing of ICE")
    if len(candidates) > MAX_CANDIDATES:
        raise BadSdp(f"the fragment has {len(candidates)} candidates; {MAX_CANDIDATES} at most")
    return Fragment(ufrag, tuple(candidates))


async def trickle(pc: RTCPeerConnection, fragment: Fragment) -> None:
    """Add its candidates; those that cannot be used are passed over, as RFC 9725 wants it.

    That there are no more is not handed on: the library would then give up who has only hidden
    addresses, though their calls still come.
    """
    for candidate, mid in fragment.candidates:
        with contextlib.suppress(BadSdp):
            await add_candidate(pc, candidate, mid, 0 if mid is None else None)
