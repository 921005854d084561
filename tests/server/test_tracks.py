"""What the two tracks hand to the encoders."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from server.live.clips import Picture
from server.live.outlet import Heard, Outlet, Shown
from server.live.yuv import as_frame
from server.webrtc.tracks import AvatarAudioTrack, AvatarTrack, AvatarVideoTrack

pytestmark = pytest.mark.timeout(20)


def shown(index: int, wall: float | None = None) -> Shown:
    rgb = np.full((64, 64, 3), 40 + index, dtype=np.uint8)
    picture = Picture(index, rgb, 1920 * index, made=0.0)
    frame = as_frame(picture.yuv)
    frame.pts, frame.time_base = 3600 * index, Fraction(1, 90_000)
    return Shown(frame, picture.yuv, picture, wall)


def heard(packet: int, wall: float | None = None) -> Heard:
    pcm = np.asarray(np.arange(960) + 960 * packet, dtype=np.int16)
    return Heard(pcm, 960 * packet, wall)


async def test_a_picture_leaves_as_it_comes_and_is_told() -> None:
    outlet, sent = Outlet(), []
    track = AvatarVideoTrack(outlet, sent.append)
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    outlet.show(shown(3))
    frame = await waiting
    assert (frame.pts, frame.time_base) == (3 * 3600, Fraction(1, 90_000))
    assert frame.format.name == "yuv420p"
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - 43).max() <= 2
    assert [each.picture.index for each in sent] == [3]


async def test_a_key_frame_for_one_viewer_is_none_for_another() -> None:
    outlets = [Outlet() for _ in range(2)]
    tracks = [AvatarVideoTrack(outlet) for outlet in outlets]
    same = shown(3)
    for outlet in outlets:
        outlet.show(same)
    one, two = [await track.recv() for track in tracks]
    one.pict_type = av.video.frame.PictureType.I  # as the library does in its encoders
    assert two.pict_type != av.video.frame.PictureType.I
    np.testing.assert_array_equal(one.to_ndarray(), two.to_ndarray())


async def test_sound_leaves_in_packets_of_20_ms() -> None:
    outlet = Outlet()
    track = AvatarAudioTrack(outlet)
    for i in range(2):
        outlet.hear(heard(i))
    first, second = await track.recv(), await track.recv()
    assert (first.samples, first.sample_rate, first.layout.name) == (960, 48_000, "mono")
    assert (first.pts, second.pts) == (0, 960)
    assert first.time_base == Fraction(1, 48_000)
    whole = np.concatenate([first.to_ndarray()[0], second.to_ndarray()[0]])
    np.testing.assert_array_equal(whole, np.arange(1920))


async def test_each_track_notes_where_it_is_on_the_line_both_share() -> None:
    outlet = Outlet()
    video, audio = AvatarVideoTrack(outlet), AvatarAudioTrack(outlet)
    assert (audio.media_time, video.media_time) == (None, None)
    outlet.show(shown(1, 1000.04))
    outlet.hear(heard(2, 1000.02))
    await video.recv()
    await audio.recv()
    assert (video.media_time, audio.media_time) == (1000.04, 1000.02)


@pytest.mark.parametrize("kind", ["video", "audio"])
async def test_a_stopped_track_raises_the_one_error_the_library_expects(kind: str) -> None:
    outlet = Outlet()
    tracks: dict[str, AvatarTrack] = {
        "video": AvatarVideoTrack(outlet),
        "audio": AvatarAudioTrack(outlet),
    }
    track = tracks[kind]
    assert track.kind == kind
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0.01)
    track.stop()
    with pytest.raises(MediaStreamError):
        await waiting
    with pytest.raises(MediaStreamError):
        await track.recv()


async def test_a_session_that_ends_ends_both_tracks() -> None:
    outlet = Outlet()
    waiting = [
        asyncio.ensure_future(AvatarVideoTrack(outlet).recv()),
        asyncio.ensure_future(AvatarAudioTrack(outlet).recv()),
    ]
    await asyncio.sleep(0.01)
    outlet.close()
    for each in waiting:
        with pytest.raises(MediaStreamError):
            await each
