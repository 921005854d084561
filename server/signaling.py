"""Offer in, answer out, over aiortc."""

from __future__ import annotations

import re
from collections.abc import Mapping

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
from server.aiortc_internals import (
    fix_video_bitrate,
    install_mic_buffer,
    offer_loopback,
    report_media_times,
)
from server.settings import ServerSettings
from server.tracks import AvatarTrack

# What the library raises on text that is no session description.
_PARSER_ERRORS = (ValueError, LookupError, AttributeError, TypeError, AssertionError)
_REFUSALS = (*_PARSER_ERRORS, InvalidAccessError, InvalidStateError, OperationError)
# Candidates with hidden addresses: looking them up takes seconds and is not needed, because the
# browser calls the server, whose addresses are plain, and is then known by where it calls from.
_MDNS_LINE = re.compile(r"^a=candidate:[^\r\n]*\.local [^\r\n]*\r?\n", re.MULTILINE)


class BadSdp(AvatarError):
    """A session description or candidate cannot be used."""


def configure_library(settings: ServerSettings) -> None:
    """Set what aiortc only lets one set for the whole process. May be called again."""
    install_mic_buffer()
    fix_video_bitrate(settings.video_bitrate_bps)
    offer_loopback(settings.allow_loopback)


def ice_configuration(settings: ServerSettings) -> RTCConfiguration:
    """How connections are made; without ICE servers they ask nobody outside."""
    servers = [RTCIceServer(urls=url) for url in settings.ice_servers]
    return RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)


def make_connection(settings: ServerSettings) -> RTCPeerConnection:
    """Make a peer connection."""
    return RTCPeerConnection(ice_configuration(settings))


def check_offer(sdp: str, *, sound_only: bool = False) -> list[str]:
    """Refuse an offer that cannot lead to a talking face; return its kinds of media, in order.

    The first video and the first audio carry the face and its voice; more of them (a screen that the
    viewer may share) are answered as inactive.

    Args:
        sound_only: an offer without any video will do.

    Raises:
        BadSdp: it cannot be read, or does not ask for a face and its voice.
    """
    try:
        offer = SessionDescription.parse(sdp)
    except _PARSER_ERRORS as error:
        what = f"{type(error).__name__} {error}"
        raise BadSdp(f"the offer is no session description: {what}") from None
    kinds = [media.kind for media in offer.media]
    for kind in ("audio",) if sound_only and "video" not in kinds else ("video", "audio"):
        media = next((m for m in offer.media if m.kind == kind), None)
        if media is None:
            raise BadSdp(f"the offer must ask for a video and an audio, it has {kinds}")
        if media.direction not in ("recvonly", "sendrecv"):
            what = f"{kind} is {media.direction}"
            raise BadSdp(f"the offer's {what}; it must be recvonly or sendrecv")
    if any(media.dtls is None or not media.dtls.fingerprints for media in offer.media):
        raise BadSdp("the offer has media without a fingerprint; they could not be encrypted")
    return kinds


def _preferences(kind: str, codec: str) -> list[RTCRtpCodecCapability]:
    """Opus alone for sound; for video the wanted codec first, then what else there is."""
    known = RTCRtpSender.getCapabilities(kind).codecs
    if kind == "audio":
        return [c for c in known if c.mimeType.lower() == "audio/opus"]
    wanted = [c for c in known if c.mimeType.lower() in (f"video/{codec}", "video/rtx")]
    return wanted + [c for c in known if c not in wanted]


async def answer(
    pc: RTCPeerConnection, sdp: str, tracks: Mapping[str, AvatarTrack], codec: str
) -> str:
    """Apply an offer to a fresh connection and return the answer, candidates included.

    Raises:
        BadSdp: the library cannot use the offer; the connection is to be closed.
    """
    kinds = dict.fromkeys(check_offer(sdp, sound_only=True))
    for kind in kinds:  # in another order the library loses the bundled transport
        if kind in tracks:
            report_media_times(pc.addTrack(tracks[kind]), tracks[kind])
    for transceiver in pc.getTransceivers():
        transceiver.setCodecPreferences(_preferences(transceiver.kind, codec))
        if transceiver.kind == "video":
            transceiver.direction = "sendonly"  # a viewer's own video would pile up, unread
    return await answer_again(pc, sdp)


async def answer_again(pc: RTCPeerConnection, sdp: str) -> str:
    """Apply an offer to a connection that has its tracks; return the answer, candidates included.

    Raises:
        BadSdp: the library cannot use the offer.
    """
    ours = set(filter(None, (sender.track for sender in pc.getSenders())))
    sdp = _MDNS_LINE.sub("", sdp)
    try:
        await pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        for transceiver in pc.getTransceivers():
            if transceiver.sender.track not in ours:
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
