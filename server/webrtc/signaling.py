"""Offer in, answer out, over aiortc."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpCodecCapability,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.sdp import SessionDescription, candidate_from_sdp

from engine.errors import AvatarError
from server.settings import ServerSettings
from server.webrtc.aiortc_internals import (
    fix_video_bitrate,
    install_encoders,
    install_mic_buffer,
    offer_loopback,
    report_media_times,
)
from server.webrtc.ice import ice_servers
from server.webrtc.tracks import AvatarTrack

# What the library raises on text that is no session description. Its `StopIteration` becomes a
# `RuntimeError` on the way out of a coroutine.
_OF_VALUES = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
_PARSER_ERRORS = (*_OF_VALUES, RuntimeError, StopIteration)
_REFUSALS = (*_PARSER_ERRORS, InvalidAccessError, InvalidStateError, OperationError, OSError)
# Candidates with hidden addresses: looking them up takes seconds and is not needed, because the
# browser calls the server, whose addresses are plain, and is then known by where it calls from.
_MDNS_LINE = re.compile(r"^a=candidate:[^\r\n]*\.local [^\r\n]*\r?\n", re.MULTILINE)


# Of who offers: to see and be heard, the same but perhaps without a picture, to see or hear alone, to be
# heard alone.
Role = Literal["talk", "call", "watch", "publish"]


class BadSdp(AvatarError):
    """A session description or candidate cannot be used."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an offer of a role must hold, and what is answered.

    The first audio and the first video count; more of them (a screen that a viewer may share) are
    answered as inactive.
    """

    said: str
    needed: tuple[tuple[str, ...], ...]  # the offer has all kinds of one of these
    offered: tuple[str, str]  # directions of either
    audio: str  # our direction, at most
    video: str


_BOTH = ("audio", "video")
_RECEIVES, _SENDS = ("recvonly", "sendrecv"), ("sendonly", "sendrecv")
# Video of theirs is never taken: it would pile up, unread.
_TERMS: dict[Role, _Terms] = {
    "talk": _Terms("ask for a video and an audio", (_BOTH,), _RECEIVES, "sendrecv", "sendonly"),
    "call": _Terms("ask for an audio", (("audio",),), _RECEIVES, "sendrecv", "sendonly"),
    "watch": _Terms(
        "ask for a video or an audio", (("video",), ("audio",)), _RECEIVES, "sendonly", "sendonly"
    ),
    "publish": _Terms("send an audio", (("audio",),), _SENDS, "recvonly", "inactive"),
}


def configure_library(settings: ServerSettings) -> None:
    """Set what aiortc only lets one set for the whole process. May be called again."""
    install_mic_buffer()
    install_encoders()
    fix_video_bitrate(settings.video_bitrate_bps)
    offer_loopback(settings.allow_loopback)


def ice_configuration(settings: ServerSettings) -> RTCConfiguration:
    """How connections are made; without ICE servers they ask nobody outside."""
    servers = [RTCIceServer(**each) for each in ice_servers(settings, "server", time.time())]
    return RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)


def make_connection(settings: ServerSettings) -> RTCPeerConnection:
    """Make a peer connection."""
    return RTCPeerConnection(ice_configuration(settings))


def read_offer(sdp: str) -> SessionDescription:
    """Parse an offer, and refuse what the library would take and then stumble over.

    Raises:
        BadSdp: it cannot be read, contradicts itself, or could not be encrypted.
    """
    try:
        offer = SessionDescription.parse(sdp)
    except _PARSER_ERRORS as error:
        what = f"{type(error).__name__} {error}"
        raise BadSdp(f"the offer is no session description: {what}") from None
    if any(media.dtls is None or not media.dtls.fingerprints for media in offer.media):
        raise BadSdp("the offer has media without a fingerprint; they could not be encrypted")
    mids = [media.rtp.muxId for media in offer.media]
    if len(set(mids)) < len(mids):
        raise BadSdp(f"the offer has media of the same name; their a=mid are {mids}")
    bundles = [group.items for group in offer.group if group.semantic == "BUNDLE"]
    if any(not set(named) <= set(mids) for named in bundles):
        raise BadSdp(f"the offer bundles media that it does not have; its a=mid are {mids}")
    return offer


def check_offer(sdp: str, role: Role = "talk") -> list[str]:
    """Refuse an offer that does not fit its role; return its kinds of media, in order.

    Raises:
        BadSdp: it cannot be used, or does not ask for a face and its voice, or send sound.
    """
    offer = read_offer(sdp)
    terms, kinds = _TERMS[role], [media.kind for media in offer.media]
    if not any(set(needed) <= set(kinds) for needed in terms.needed):
        raise BadSdp(f"the offer must {terms.said}, it has {kinds}")
    for kind in _BOTH:
        media = next((m for m in offer.media if m.kind == kind), None)
        if media is not None and media.direction not in terms.offered:
            what = f"{kind} is {media.direction}"
            raise BadSdp(f"the offer's {what}; it must be {' or '.join(terms.offered)}")
    return kinds


def _preferences(kind: str, codec: str) -> list[RTCRtpCodecCapability]:
    """Opus alone for sound; for video the wanted codec first, then what else there is."""
    known = RTCRtpSender.getCapabilities(kind).codecs
    if kind == "audio":
        return [c for c in known if c.mimeType.lower() == "audio/opus"]
    wanted = [c for c in known if c.mimeType.lower() in (f"video/{codec}", "video/rtx")]
    return wanted + [c for c in known if c not in wanted]


async def answer(
    pc: RTCPeerConnection,
    sdp: str,
    tracks: Mapping[str, AvatarTrack],
    codec: str,
    role: Role = "talk",
) -> str:
    """Apply an offer to a fresh connection and return the answer, candidates included.

    Raises:
        BadSdp: the library cannot use the offer; the connection is to be closed.
    """
    kinds = dict.fromkeys(check_offer(sdp, role))
    for kind in kinds:  # in another order the library loses the bundled transport
        if kind in tracks:
            report_media_times(pc.addTrack(tracks[kind]), tracks[kind])
        elif kind in _BOTH:
            pc.addTransceiver(kind)
    for transceiver in pc.getTransceivers():
        transceiver.setCodecPreferences(_preferences(transceiver.kind, codec))
        transceiver.direction = getattr(_TERMS[role], transceiver.kind)
    return await answer_again(pc, sdp)


async def answer_again(pc: RTCPeerConnection, sdp: str) -> str:
    """Apply an offer to a connection that has its tracks; return the answer, candidates included.

    Raises:
        BadSdp: the library cannot use the offer.
    """
    read_offer(sdp)
    ours = list(pc.getTransceivers())
    sdp = _MDNS_LINE.sub("", sdp)
    try:
        await pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        for transceiver in pc.getTransceivers():
            if transceiver not in ours:
                transceiver.direction = "inactive"  # nobody would fetch what comes
        await pc.setLocalDescription(await pc.createAnswer())
    except _REFUSALS as error:
        raise BadSdp(f"the offer cannot be used: {type(error).__name__} {error}") from None
    return pc.localDescription.sdp


async def add_candidate(
    pc: RTCPeerConnection, candidate: str, mid: str | None, line: int | None
) -> None:
    """Add a candidate that the browser found later; an empty one ends them.

    Raises:
        BadSdp: it cannot be read.
    """
    text = candidate.removeprefix("a=").removeprefix("candidate:")
    try:
        parsed = candidate_from_sdp(text) if text.strip() else None
        if parsed is not None:
            parsed.sdpMid, parsed.sdpMLineIndex = mid, line
            if parsed.ip.endswith(".local"):
                return
        await pc.addIceCandidate(parsed)
    except _REFUSALS as error:
        raise BadSdp(f"the candidate cannot be used: {candidate!r}: {error}") from None
