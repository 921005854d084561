"""One render to any number of receivers: what leaves, when, and what a slow one misses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from server.live import frame_code
from server.live.beeps import Beep
from server.live.broadcast import Broadcast
from server.live.clips import Picture
from server.live.outlet import SOUND_KEPT, Heard, Outlet
from server.live.pacing import REPEAT_S, Playout

pytestmark = pytest.mark.timeout(20)


class Studio:
    """A playout with a broadcast that runs, and what was told of it."""

    def __init__(self, *, coded: bool = False) -> None:
        self.playout = Playout(25, 2)
        self.left: list[tuple[int, float]] = []
        self.played: list[int] = []
        self.numbers: list[tuple[int, int]] = []
        self.broadcast = Broadcast(
            self.playout,
            shown=lambda picture, now: self.left.append((picture.index, now)),
            heard=self.played.append,
            coded=(lambda n, picture, spoken: self.numbers.append((n, picture.index)))
            if coded
            else None,
        )

    def outlet(self) -> Outlet:
        outlet = Outlet()
        self.broadcast.outlets.append(outlet)
        return outlet

    def hear(self, packets: int, begin: int = 0) -> None:
        for i in range(begin, begin + packets):
            pcm = np.asarray(np.arange(960) + 960 * i, dtype=np.int16)
            self.playout.hear(pcm, time.monotonic())
        self.broadcast.wake()

    def show(self, index: int, **kind: object) -> Picture:
        height, width = kind.pop("size", (64, 64))  # type: ignore[misc]
        rgb = np.full((height, width, 3), 40 + index, dtype=np.uint8)
        kind = {"place": None, "made": time.monotonic(), **kind}
        picture = Picture(index, rgb, **kind)  # type: ignore[arg-type]
        self.playout.show(picture, time.monotonic())
        self.broadcast.wake()
        return picture


@asynccontextmanager
async def on_air(*, coded: bool = False) -> AsyncIterator[Studio]:
    studio = Studio(coded=coded)
    task = asyncio.ensure_future(studio.broadcast.run())
    try:
        yield studio
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.timing
async def test_a_picture_that_is_due_leaves_at_once_for_everybody() -> None:
    async with on_air() as studio:
        outlets = [studio.outlet() for _ in range(3)]
        await asyncio.sleep(0.02)
        pushed = time.monotonic()
        studio.show(3)
        shown = [await outlet.picture() for outlet in outlets]
        assert [each.frame is shown[0].frame for each in shown] == [True] * 3  # one render
        assert [index for index, _ in studio.left] == [3]
        assert studio.left[0][1] - pushed < 0.1


@pytest.mark.timing
async def test_sound_leaves_when_it_is_due_and_is_told_by_its_place() -> None:
    async with on_air() as studio:
        outlet = studio.outlet()
        began = time.monotonic()
        studio.hear(5)
        packets = [await outlet.sound() for _ in range(5)]
        took = time.monotonic() - began
        assert 0.2 < took < 0.4  # the look-ahead, and four packets more
        np.testing.assert_array_equal(np.concatenate([p.pcm for p in packets]), np.arange(4800))
        assert [p.pts for p in packets] == [0, 960, 1920, 2880, 3840]
        assert studio.played[:5] == [960, 1920, 2880, 3840, 4800]


async def test_picture_and_sound_of_a_place_have_one_wall_time() -> None:
    async with on_air() as studio:
        outlet = studio.outlet()
        studio.hear(6)
        studio.show(0, place=0)
        studio.show(1, place=1920)
        await outlet.picture()
        second = await outlet.picture()
        packets = [await outlet.sound() for _ in range(3)]
        assert packets[2].wall is not None
        assert second.wall == pytest.approx(packets[2].wall, abs=0.02)
        assert packets[2].wall == pytest.approx(time.time(), abs=1)
        assert packets[2].wall - packets[0].wall == pytest.approx(0.04, abs=0.002)  # type: ignore[operator]


async def test_who_comes_later_gets_what_leaves_from_then_on() -> None:
    async with on_air() as studio:
        first = studio.outlet()
        studio.hear(4)
        await first.sound()
        late = studio.outlet()
        rest = [(await first.sound()).pts for _ in range(2)]
        assert [(await late.sound()).pts for _ in range(2)] == rest


async def test_odd_sides_are_cut_to_even_ones() -> None:
    async with on_air() as studio:
        outlet = studio.outlet()
        studio.show(0, size=(65, 71))
        frame = (await outlet.picture()).frame
        assert (frame.width, frame.height) == (70, 64)


async def test_the_code_is_drawn_on_a_copy_with_the_beep_of_the_frame() -> None:
    async with on_air(coded=True) as studio:
        outlet = studio.outlet()
        codes, pictures = [], []
        for i, beep in enumerate((None, Beep(7, "s", 0, 0))):
            pictures.append(studio.show(i, beep=beep, size=(256, 256)))
            codes.append(frame_code.read((await outlet.picture()).frame.to_ndarray(format="rgb24")))
        assert [(c.counter, c.flags, c.id) for c in codes if c] == [(0, 0, 0), (1, 1, 7)]
        now_ms = int(time.time() * 1000) & 0xFFFFFFFF
        assert all(0 <= now_ms - c.time_ms < 2000 for c in codes if c)
        assert (pictures[0].rgb == 40).all()
        assert studio.numbers == [(0, 0), (1, 1)]


async def test_a_repeated_frame_is_not_counted_and_carries_no_beep() -> None:
    async with on_air(coded=True) as studio:
        outlet = studio.outlet()
        studio.show(0, beep=Beep(7, "s", 0, 0), size=(256, 256))
        first = await outlet.picture()
        began = time.monotonic()
        again = await outlet.picture()
        assert time.monotonic() - began > REPEAT_S * 0.8
        assert again.frame.pts > first.frame.pts
        code = frame_code.read(again.frame.to_ndarray(format="rgb24"))
        assert code is not None
        assert (code.counter, code.flags, code.id) == (1, 0, 0)
        assert [index for index, _ in studio.left] == [0]


# Outlets


def heard(packet: int) -> Heard:
    return Heard(np.full(960, packet, np.int16), 960 * packet, None)


async def test_a_receiver_that_is_slow_gets_the_newest_picture_and_misses_the_rest() -> None:
    async with on_air() as studio:
        slow, quick = studio.outlet(), studio.outlet()
        for i in range(3):
            studio.show(i)
            assert (await quick.picture()).picture.index == i
        assert (await slow.picture()).picture.index == 2
        assert (slow.missed, quick.missed) == (2, 0)


async def test_a_receiver_that_takes_no_sound_keeps_half_a_second_of_it() -> None:
    outlet = Outlet()
    for i in range(100):
        outlet.hear(heard(i))
    kept = [(await outlet.sound()).pts // 960 for _ in range(SOUND_KEPT)]
    assert kept == list(range(75, 100))
    assert SOUND_KEPT * 0.02 == 0.5
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outlet.sound(), 0.02)


async def test_a_closed_outlet_gives_what_is_left_and_then_says_so() -> None:
    outlet = Outlet()
    outlet.hear(heard(1))
    outlet.close()
    outlet.close()
    assert (await outlet.sound()).pts == 960
    for ended in (outlet.sound, outlet.picture):
        with pytest.raises(EOFError):
            await ended()
