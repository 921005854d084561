"""The video encoders that the library uses are ours, and what they send can be watched."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import aiortc.codecs
import av
import numpy as np
import pytest
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import vp8_depayload
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from engine.face.image_file import decode_image
from server.live.yuv import Yuv, as_frame, to_yuv
from server.settings import ServerSettings
from server.webrtc.signaling import configure_library

PORTRAIT = Path(__file__).parents[2] / "server" / "data" / "astronaut.png"
PARTS = {"VP8": vp8_depayload, "H264": h264_depayload}


def encoder_of(name: str) -> aiortc.codecs.Encoder:
    configure_library(ServerSettings(video_bitrate_bps=1_000_000))
    return aiortc.codecs.get_encoder(RTCRtpCodecParameters(f"video/{name}", 90_000, payloadType=96))


def face(side: int) -> Yuv:
    return to_yuv(decode_image(PORTRAIT.read_bytes())[:side, :side])


def send(
    name: str, encoder: aiortc.codecs.Encoder, yuv: Yuv, at: int, *, key: bool = False
) -> bytes:
    frame = as_frame(yuv)
    frame.pts, frame.time_base = 3600 * at, Fraction(1, 90_000)
    payloads, stamp = encoder.encode(frame, force_keyframe=key)
    assert stamp == 3600 * at
    assert max(map(len, payloads)) <= 1300
    return b"".join(PARTS[name](payload) for payload in payloads)


def watch(name: str, data: bytes, decoder: av.VideoCodecContext | None = None) -> Yuv:
    decoder = decoder or av.CodecContext.create(name.lower(), "r")  # type: ignore[assignment]
    assert decoder is not None
    frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    return frames[0].to_ndarray()


@pytest.mark.parametrize("name", PARTS)
def test_a_face_looks_as_it_was_sent_and_keeps_to_the_rate(name: str) -> None:
    encoder, whole, sizes = encoder_of(name), face(320), []
    assert type(encoder).__module__ == "server.webrtc.aiortc_internals"
    for i in range(50):
        yuv = np.roll(whole, i // 2, axis=1)
        sizes.append(len(send(name, encoder, yuv, i)))
    error = watch(name, send(name, encoder, whole, 50, key=True)).astype(float) - whole
    assert 10 * np.log10(255**2 / np.square(error[:320]).mean()) > 36
    assert sum(sizes[1:]) * 8 * 25 / 49 < 1_150_000


@pytest.mark.parametrize("name", PARTS)
def test_a_receiver_that_comes_later_asks_for_a_key_frame(name: str) -> None:
    encoder, whole = encoder_of(name), face(256)
    for i in range(10):
        send(name, encoder, whole, i)
    assert watch(name, send(name, encoder, whole, 10, key=True)).shape == (384, 256)


@pytest.mark.parametrize("name", PARTS)
def test_another_size_begins_anew(name: str) -> None:
    encoder = encoder_of(name)
    send(name, encoder, face(256), 0)
    assert watch(name, send(name, encoder, face(320), 1)).shape == (480, 320)
