"""When frames and their sound leave. No test here waits: time is an argument."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.clips import Clip
from server.pacing import GRACE_S, PACKET_S, REPEAT_S, Pacer, Playout

FRAME = 0.04
RGB = np.zeros((64, 64, 3), dtype=np.uint8)


def clip(index: int, *, generation: int = 0, quiet: bool = False, fresh: bool = True) -> Clip:
    sound = np.full(1920, 0 if quiet else 5000, dtype=np.int16)
    sound[0] = index
    return Clip(index, RGB, sound, generation, made=0.0, fresh=fresh)


def test_a_ready_frame_leaves_at_once() -> None:
    pacer = Pacer(FRAME)
    assert pacer.leave_at(7.123) == 7.123
    assert pacer.leave_at(9.5) == 9.5


def test_frames_ready_together_leave_one_frame_apart() -> None:
    pacer = Pacer(FRAME)
    assert [pacer.leave_at(1.0) for _ in range(3)] == pytest.approx([1.0, 1.04, 1.08])


def test_a_late_frame_moves_the_clock_and_the_delay_is_worked_off() -> None:
    pacer = Pacer(FRAME)
    delays = []
    for i in range(300):
        ready = i * FRAME + (0.09 if i == 50 else 0.0)
        delays.append(pacer.leave_at(ready) - i * FRAME)
    assert max(delays[:50]) < 1e-9
    assert delays[50] == pytest.approx(0.09)
    assert delays[60] == pytest.approx(0.09)
    assert delays[-1] < 0.01


def test_jitter_below_the_delay_moves_nothing() -> None:
    rng = np.random.default_rng(0)
    pacer = Pacer(FRAME)
    left = [pacer.leave_at(i * FRAME + 0.010 * rng.random()) for i in range(500)]
    gaps = np.diff(left[100:])
    assert gaps.max() < FRAME + 0.006
    assert gaps.min() > FRAME * 0.95


@given(st.lists(st.floats(0, 0.3), min_size=2, max_size=200))
def test_frames_leave_in_order_never_early_and_never_in_a_rush(lateness: list[float]) -> None:
    pacer = Pacer(FRAME)
    ready = np.maximum.accumulate(np.arange(len(lateness)) * FRAME + np.array(lateness))
    left = np.array([pacer.leave_at(float(r)) for r in ready])
    assert (left >= ready - 1e-9).all()
    assert (np.diff(left) >= FRAME * 0.92 - 1e-9).all()


@pytest.mark.parametrize("drift", [0.97, 1.0, 1.03])
def test_a_microphone_that_runs_slow_or_fast_gathers_no_delay(drift: float) -> None:
    pacer = Pacer(FRAME)
    delay = 0.0
    for i in range(3000):
        ready = i * FRAME * drift
        delay = pacer.leave_at(ready) - ready
    assert delay < 0.08


def run(playout: Playout, ready: dict[int, float], until: float) -> tuple[list, list]:
    """Play clips that become ready at the given times; look every ms. Times, values, time stamps."""
    pictures, sounds = [], []
    waiting = sorted(ready.items())
    for now in np.arange(0, until, 0.001):
        while waiting and waiting[0][1] <= now:
            playout.push(clip(waiting.pop(0)[0]), float(now))
        if taken := playout.take_frame(float(now)):
            pictures.append((float(now), taken[0].index, taken[1]))
        if heard := playout.take_sound(float(now)):
            sounds.append((float(now), heard[0], heard[1]))
    return pictures, sounds


def test_a_frame_and_its_sound_leave_together() -> None:
    pictures, sounds = run(Playout(25), {i: 0.1 + i * FRAME for i in range(20)}, 0.9)
    begins = {int(pcm[0]): now for now, pcm, _ in sounds if pcm[1] == 5000 and pcm[0] != 5000}
    for now, index, _ in pictures:
        assert abs(begins[index] - now) <= 0.0011
    gaps = np.diff([now for now, _, _ in sounds[:40]])
    assert gaps.max() <= PACKET_S + 0.0011


def test_time_stamps_of_picture_and_sound_share_one_line() -> None:
    late = {i: 0.1 + i * FRAME + (0.1 if i >= 5 else 0) for i in range(20)}
    pictures, sounds = run(Playout(25), late, 1.1)
    heard = {int(pcm[0]): pts for _, pcm, pts in sounds if pcm[1] == 5000 and pcm[0] != 5000}
    for _, index, pts in pictures:
        if index in heard:
            assert pts == heard[index] * 90 // 48
    stamps = [pts for _, _, pts in sounds]
    assert stamps == [960 * i for i in range(len(stamps))]


def test_sound_waits_for_its_late_picture_and_packets_stay_even() -> None:
    late = {i: 0.1 + i * FRAME + (0.1 if i >= 5 else 0) for i in range(20)}
    playout = Playout(25)
    pictures, sounds = run(playout, late, 1.0)
    shown = {index: now for now, index, _ in pictures}
    begins = {int(pcm[0]): now for now, pcm, _ in sounds if pcm[1] == 5000 and pcm[0] != 5000}
    assert begins[5] >= late[5]
    assert abs(begins[5] - shown[5]) < 0.0011
    assert playout.replaced in (4, 5)
    gaps = np.diff([now for now, _, _ in sounds])
    assert gaps.max() <= PACKET_S + GRACE_S + 0.0021


def test_made_up_sound_fades_away() -> None:
    _, sounds = run(Playout(25), {0: 0.0}, 0.5)
    peaks = [int(np.abs(pcm.astype(int)).max()) for _, pcm, _ in sounds[2:]]
    assert peaks[0] > 1000
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 10


def test_a_stale_picture_is_dropped_when_the_next_is_due() -> None:
    playout = Playout(25)
    for i in range(3):
        playout.push(clip(i), 0.0)
    assert playout.take_frame(0.085)[0].index == 2  # type: ignore[index]
    assert playout.dropped == 2
    assert playout.take_frame(0.086) is None


def test_a_held_picture_is_sent_again_so_that_key_frames_can_be_had() -> None:
    playout = Playout(25)
    playout.push(clip(0), 0.0)
    first = playout.take_frame(0.0)
    assert first is not None
    assert playout.frame_due() == pytest.approx(REPEAT_S)
    assert playout.take_frame(REPEAT_S - 0.01) is None
    again = playout.take_frame(REPEAT_S)
    assert again is not None
    assert again[0] is first[0]
    assert again[1] > first[1]


def test_too_much_ahead_is_dropped_and_the_newest_leaves_next() -> None:
    playout = Playout(25, limit_s=0.2)
    for i in range(7):
        playout.push(clip(i), 0.0)
    assert playout.dropped == 6
    assert playout.take_frame(0.0)[0].index == 6  # type: ignore[index]
    assert playout.take_sound(0.0)[0][0] == 6  # type: ignore[index]


def test_quiet_frames_make_up_for_a_long_wait() -> None:
    playout = Playout(25)
    for i in range(4):
        playout.push(clip(i), 0.0)
    playout.push(clip(4, quiet=True), 0.0)
    playout.push(clip(5), 0.0)
    assert playout.dropped == 1
    shown = [playout.take_frame(t / 1000) for t in range(0, 300, 10)]
    assert [taken[0].index for taken in shown if taken] == [0, 1, 2, 3, 5]


def shown_at(playout: Playout, times: list[float]) -> list[int]:
    """Which frames are taken at these times."""
    return [taken[0].index for now in times if (taken := playout.take_frame(now))]


def every_fourth_drawn(playout: Playout, indices: range, now: float, **kind: bool | int) -> None:
    for i in indices:
        playout.push(clip(i, fresh=i % 4 == 0, **kind), now)  # type: ignore[arg-type]


def test_a_repeated_frame_is_not_sent_again() -> None:
    playout, shown = Playout(25), []
    for i in range(12):
        every_fourth_drawn(playout, range(i, i + 1), i * FRAME)
        shown += shown_at(playout, [i * FRAME])
    assert shown == [0, 4, 8]


def test_a_quiet_clip_is_left_out_without_its_fresh_frame() -> None:
    playout = Playout(25)
    every_fourth_drawn(playout, range(4), 0.0)  # 160 ms wait
    playout.push(clip(4, quiet=True), 0.0)
    every_fourth_drawn(playout, range(5, 8), 0.0)
    assert playout.dropped == 1
    # 5 repeats 4 and stands in for it at the time at which 4 would have been shown
    assert shown_at(playout, [0.0, 0.161, 0.201, 0.241, 0.281]) == [0, 5]


def test_a_fresh_frame_made_before_an_interruption_is_seen_right_after_it() -> None:
    playout = Playout(25)
    playout.push(clip(0), 0.0)
    assert shown_at(playout, [0.0]) == [0]
    playout.interrupt(1, 0.01)
    playout.push(clip(4), 0.02)  # its sound is stale, its picture the newest there is
    every_fourth_drawn(playout, range(5, 8), 0.03, generation=1)
    assert shown_at(playout, [0.03, 0.041, 0.081, 0.121]) == [5]
    assert playout.take_sound(0.041)[0][0] == 5  # type: ignore[index]


def test_a_fresh_frame_interrupted_while_it_waits_is_made_up_for_by_its_repeat() -> None:
    playout = Playout(25)
    every_fourth_drawn(playout, range(5), 0.0)
    playout.interrupt(1, 0.0)
    every_fourth_drawn(playout, range(5, 8), 0.0, generation=1)
    assert shown_at(playout, [0.0, 0.17, 0.21, 0.25]) == [5]


def test_a_fresh_frame_dropped_for_too_much_ahead_is_made_up_for_by_its_repeat() -> None:
    playout = Playout(25, limit_s=0.2)
    every_fourth_drawn(playout, range(7), 0.0)  # 6 would wait 240 ms: all before it goes
    assert shown_at(playout, [0.0]) == [6]
    assert playout.take_sound(0.0)[0][0] == 6  # type: ignore[index]


def test_a_frame_that_expired_untaken_is_made_up_for_by_its_repeat() -> None:
    playout = Playout(25)
    playout.push(clip(0), 0.0)
    for i in range(1, 13):
        playout.push(clip(i, fresh=False), i * FRAME)
    assert shown_at(playout, [12.5 * FRAME]) == [12]


def test_queues_stay_bounded_when_nobody_takes() -> None:
    playout = Playout(25)
    for i in range(1000):
        playout.push(clip(i), i * FRAME)
    assert playout.dropped >= 1000 - 0.8 / FRAME - 1
    late = 1000 * FRAME
    sounds = iter(lambda: playout.take_sound(late), None)
    assert sum(int(pcm[1]) == 5000 for pcm, _ in sounds) * PACKET_S <= 0.8 + FRAME
    assert playout.take_frame(late)[0].index == 999  # type: ignore[index]


def test_time_stamps_go_on_with_the_clock_when_sound_is_taken_late_or_not_at_all() -> None:
    """An encoder gives a frame bits by its time stamp: two at the same moment would ruin it."""
    playout, pts = Playout(25), []
    for i in range(60):
        playout.push(clip(i), i * FRAME)
        taken = playout.take_frame(i * FRAME + 0.001)
        assert taken is not None
        pts.append(taken[1])
    assert np.diff(pts) == pytest.approx(3600)
    burst = [playout.take_sound(59 * FRAME + 0.03) for _ in range(30)]
    heard = [sound for sound in burst if sound]
    assert 15 <= len(heard) <= 22  # the last 400 ms, the rest was over
    assert (heard[-1][1] - 960) * 90 // 48 == pts[-1]  # its second packet came last
    playout.interrupt(1, 59 * FRAME + 0.031)
    playout.push(clip(60, generation=1), 60 * FRAME)
    taken = playout.take_frame(60 * FRAME + 0.001)
    assert taken is not None
    assert taken[1] - pts[-1] >= 1800


def test_an_interruption_drops_what_waits_and_what_is_still_to_come() -> None:
    playout = Playout(25)
    for i in range(3):
        playout.push(clip(i), 0.0)
    playout.take_frame(0.0)
    playout.take_sound(0.0)
    playout.interrupt(1, 0.0)
    assert playout.take_frame(0.2) is None
    playout.push(clip(3), 0.2)  # made before the interruption, handed over after it
    assert playout.take_frame(0.2) is None
    assert playout.dropped == 3
    playout.push(clip(4, generation=1), 0.21)
    assert playout.take_frame(0.21)[0].index == 4  # type: ignore[index]
    sound = playout.take_sound(0.21)
    assert sound is not None
    assert (sound[0][0], sound[1]) == (4, 960)


@settings(max_examples=25)
@given(
    st.lists(st.floats(0, 0.25), min_size=5, max_size=40),
    st.sets(st.integers(0, 39), max_size=2),
)
def test_whatever_happens_stamps_rise_and_sound_stays_with_its_picture(
    lateness: list[float], interruptions: set[int]
) -> None:
    playout, generation = Playout(25), 0
    ready = np.maximum.accumulate(np.arange(len(lateness)) * FRAME + np.array(lateness))
    shown, heard, stamps, video = {}, {}, [], []
    i = 0
    for now in np.arange(0, float(ready[-1]) + 0.6, 0.002):
        while i < len(ready) and ready[i] <= now:
            if i in interruptions:
                generation += 1
                playout.interrupt(generation, float(now))
            playout.push(clip(i, generation=generation), float(now))
            i += 1
        if taken := playout.take_frame(float(now)):
            shown.setdefault(taken[0].index, float(now))
            video.append(taken[1])
        if sound := playout.take_sound(float(now)):
            stamps.append(sound[1])
            if sound[0][1] == 5000 and sound[0][0] != 5000:
                heard[int(sound[0][0])] = float(now)
    steps = np.diff(stamps)
    assert ((steps == 960) | (steps == 1920)).all()  # a packet just due is stepped over, if cut
    assert (steps == 1920).sum() <= len(interruptions)
    assert all(step >= 1800 for step in np.diff(video))
    for index in shown.keys() & heard.keys():
        assert abs(shown[index] - heard[index]) <= 0.021
