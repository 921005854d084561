"""What the two tracks hand to the encoders."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from server import frame_code
from server.beeps import Beep
from server.clips import Clip
from server.pacing import REPEAT_S, Playout
from server.tracks import AvatarAudioTrack, AvatarVideoTrack

pytestmark = pytest.mark.timeout(20)


def clip(index: int, *, height: int = 64, width: int = 64, beep: Beep | None = None) -> Clip:
    rgb = np.full((height, width, 3), 40 + index, dtype=np.uint8)
    sound = np.arange(1920, dtype=np.int16) + index
    return Clip(index, rgb, sound, 0, made=time.monotonic(), beep=beep)


async def test_frames_wait_for_the_engine_and_then_leave_at_once() -> None:
    playout, sent = Playout(25), []
    track = AvatarVideoTrack(playout, lambda clip, now: sent.append((clip.index, now)), code=False)
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    pushed = time.monotonic()
    playout.push(clip(3), pushed)
    track.wake()
    frame = await waiting
    assert sent[0][0] == 3
    assert sent[0][1] - pushed < 0.1
    assert (frame.pts, frame.time_base.denominator) == (0, 90_000)
    np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), clip(3).rgb)


async def test_sound_leaves_in_packets_of_20_ms() -> None:
    playout = Playout(25)
    track = AvatarAudioTrack(playout)
    playout.push(clip(0), time.monotonic())
    first, second = await track.recv(), await track.recv()
    assert (first.samples, first.sample_rate, first.layout.name) == (960, 48_000, "mono")
    assert (first.pts, second.pts) == (0, 960)
    whole = np.concatenate([first.to_ndarray()[0], second.to_ndarray()[0]])
    np.testing.assert_array_equal(whole, clip(0).sound)


async def test_both_tracks_note_the_same_line() -> None:
    playout = Playout(25)
    audio = AvatarAudioTrack(playout)
    video = AvatarVideoTrack(playout, lambda clip, now: None, code=False)
    assert (audio.media_time, video.media_time) == (None, None)
    playout.push(clip(0), time.monotonic())
    await video.recv()
    await audio.recv()
    assert audio.media_time == pytest.approx(video.media_time, abs=0.001)
    assert audio.media_time == pytest.approx(time.time(), abs=1)
    first = audio.media_time
    await audio.recv()
    assert audio.media_time - first == pytest.approx(0.02, abs=0.001)


@pytest.mark.parametrize("kind", ["video", "audio"])
async def test_a_stopped_track_raises_the_one_error_the_library_expects(kind: str) -> None:
    playout = Playout(25)
    track = AvatarAudioTrack(playout)
    if kind == "video":
        track = AvatarVideoTrack(playout, lambda clip, now: None, code=False)  # type: ignore[assignment]
    assert track.kind == kind
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0.01)
    track.stop()
    with pytest.raises(MediaStreamError):
        await waiting
    with pytest.raises(MediaStreamError):
        await track.recv()


async def test_odd_sides_are_cut_to_even_ones() -> None:
    playout = Playout(25)
    track = AvatarVideoTrack(playout, lambda clip, now: None, code=False)
    playout.push(clip(0, height=65, width=71), time.monotonic())
    frame = await track.recv()
    assert (frame.width, frame.height) == (70, 64)


async def test_the_code_is_drawn_on_a_copy_with_the_beep_of_the_frame() -> None:
    playout, beep = Playout(25), Beep(7, "s", 0, 0)
    track = AvatarVideoTrack(playout, lambda clip, now: None, code=True)
    first, second = clip(0), clip(1, beep=beep)
    for each in (first, second):
        playout.push(each, time.monotonic())
    codes = []
    for _ in range(2):
        rgb = (await track.recv()).to_ndarray(format="rgb24")
        codes.append(frame_code.read(rgb))
    assert [(c.counter, c.flags, c.id) for c in codes if c] == [(0, 0, 0), (1, 1, 7)]
    now_ms = int(time.time() * 1000) & 0xFFFFFFFF
    assert all(0 <= now_ms - c.time_ms < 2000 for c in codes if c)
    assert (first.rgb == 40).all()


async def test_a_repeated_frame_is_not_counted_and_carries_no_beep() -> None:
    playout, sent = Playout(25), []
    track = AvatarVideoTrack(playout, lambda clip, now: sent.append(clip.index), code=True)
    playout.push(clip(0, beep=Beep(7, "s", 0, 0)), time.monotonic())
    first = await track.recv()
    began = time.monotonic()
    again = await track.recv()
    assert time.monotonic() - began > REPEAT_S * 0.8
    assert again.pts > first.pts
    code = frame_code.read(again.to_ndarray(format="rgb24"))
    assert code is not None
    assert (code.counter, code.flags, code.id) == (1, 0, 0)
    assert sent == [0]
