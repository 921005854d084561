"""What is set for the whole process, and the order of media in offers."""

from __future__ import annotations

import aioice.ice
import aiortc.codecs.vpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from server.settings import ServerSettings
from server.webrtc import signaling

pytestmark = pytest.mark.timeout(30)


def test_what_is_set_for_the_whole_process_follows_the_settings() -> None:
    try:
        signaling.configure_library(ServerSettings(video_bitrate_bps=900_000, allow_loopback=False))
        assert aiortc.codecs.vpx.MAX_BITRATE == 900_000
        assert "127.0.0.1" not in aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=False)
    finally:
        signaling.configure_library(ServerSettings())
    assert "127.0.0.1" in aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=False)


def test_no_ice_server_is_asked_unless_given() -> None:
    assert signaling.ice_configuration(ServerSettings()).iceServers == []
    given = signaling.ice_configuration(ServerSettings(ice_servers=("stun:stun.example:3478",)))
    assert [server.urls for server in given.iceServers] == ["stun:stun.example:3478"]


@pytest.mark.parametrize("order", ["vad", "avd", "dva", "dav", "va", "av"])
async def test_media_in_any_order_keep_their_candidates(order: str) -> None:
    signaling.configure_library(ServerSettings())
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc = signaling.make_connection(ServerSettings())
    try:
        for kind in order:
            if kind == "d":
                viewer.createDataChannel("control")
            elif kind == "v":
                viewer.addTransceiver("video", direction="recvonly")
            else:
                viewer.addTransceiver("audio", direction="sendrecv")
        await viewer.setLocalDescription(await viewer.createOffer())
        tracks = {"audio": AudioStreamTrack(), "video": VideoStreamTrack()}
        answer = await signaling.answer(pc, viewer.localDescription.sdp, tracks, "vp8")
        assert "a=candidate" in answer
    finally:
        await viewer.close()
        await pc.close()


@pytest.mark.parametrize(("codec", "name"), [("vp8", "VP8"), ("h264", "H264")])
async def test_the_wanted_codec_comes_first(codec: str, name: str) -> None:
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc = signaling.make_connection(ServerSettings())
    try:
        viewer.addTransceiver("video", direction="recvonly")
        viewer.addTransceiver("audio", direction="sendrecv")
        await viewer.setLocalDescription(await viewer.createOffer())
        sdp = viewer.localDescription.sdp
        answer = await signaling.answer(
            pc, sdp, {"video": VideoStreamTrack(), "audio": AudioStreamTrack()}, codec
        )
        line = next(x for x in answer.splitlines() if x.startswith("m=video"))
        assert f"a=rtpmap:{line.split()[3]} {name}/90000" in answer
    finally:
        await viewer.close()
        await pc.close()


async def test_video_of_the_viewer_is_not_taken() -> None:
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc = signaling.make_connection(ServerSettings())
    try:
        viewer.addTransceiver(VideoStreamTrack(), direction="sendrecv")
        viewer.addTransceiver("audio", direction="sendrecv")
        await viewer.setLocalDescription(await viewer.createOffer())
        tracks = {"audio": AudioStreamTrack(), "video": VideoStreamTrack()}
        answer = await signaling.answer(pc, viewer.localDescription.sdp, tracks, "vp8")
        video, audio = answer[answer.index("m=video") :].split("m=audio")
        assert "a=sendonly" in video
        assert "a=sendrecv" in audio
    finally:
        await viewer.close()
        await pc.close()


async def test_hidden_addresses_are_not_looked_up() -> None:
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc = signaling.make_connection(ServerSettings())
    try:
        viewer.addTransceiver("video", direction="recvonly")
        viewer.addTransceiver("audio", direction="sendrecv")
        await viewer.setLocalDescription(await viewer.createOffer())
        lines = viewer.localDescription.sdp.splitlines()
        hidden = [
            " ".join([*x.split()[:4], "abcd-ef.local", *x.split()[5:]]) if "a=candid" in x else x
            for x in lines
        ]
        sdp = "\r\n".join(hidden) + "\r\n"
        assert ".local" in sdp
        await signaling.answer(
            pc, sdp, {"video": VideoStreamTrack(), "audio": AudioStreamTrack()}, "vp8"
        )
        assert ".local" not in pc.remoteDescription.sdp
    finally:
        await viewer.close()
        await pc.close()


async def test_a_screen_that_a_viewer_may_share_is_left_alone_in_every_offer() -> None:
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc = signaling.make_connection(ServerSettings())
    tracks = {"audio": AudioStreamTrack(), "video": VideoStreamTrack()}
    try:
        for kind, direction in (
            ("audio", "sendrecv"),
            ("video", "sendrecv"),
            ("video", "sendonly"),
        ):
            viewer.addTransceiver(kind, direction=direction)
        await viewer.setLocalDescription(await viewer.createOffer())
        answer = await signaling.answer(pc, viewer.localDescription.sdp, tracks, "vp8")
        for _ in range(2):
            _, face, screen = answer.split("m=video")
            assert "a=sendonly" in face
            assert "a=inactive" in screen
            await viewer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            await viewer.setLocalDescription(await viewer.createOffer())
            answer = await signaling.answer_again(pc, viewer.localDescription.sdp)
    finally:
        await viewer.close()
        await pc.close()
