"""When sound and pictures leave. No test here waits: time is an argument."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.live.clock import FIRST_S, MAX_EXTRA_S, PACKET_S, Clock
from server.live.pacing import GRACE_S, LIMIT_S, REPEAT_S, Playout
from tests.server.simulated import (
    FRAME_S,
    LOOKAHEAD_S,
    PACKET,
    Line,
    check_sound,
    on_time,
    picture,
    silence,
    tone,
)

# The clock


def test_nothing_has_a_time_before_the_first_sound() -> None:
    clock = Clock(LOOKAHEAD_S)
    assert clock.leave_at(0) is None
    assert clock.gap() == 0.0
    clock.fed(0, 7.0)
    assert clock.leave_at(48_000) == pytest.approx(8.0 + LOOKAHEAD_S + FIRST_S)


def test_the_line_is_as_late_as_the_slowest_picture_of_the_last_second_needs() -> None:
    clock = Clock(LOOKAHEAD_S)
    clock.fed(0, 0.0)
    for i in range(60):
        slow = 0.19 if i == 30 else 0.13
        clock.ready(1920 * i, i * FRAME_S + slow)
        clock.fed(1920 * i, i * FRAME_S)
        clock.shift(clock.gap())
        delay = clock.leave_at(0)
        assert delay is not None
        if i in (30, 40, 54):
            assert delay == pytest.approx(0.192)
        if i in (29, 59):
            assert delay == pytest.approx(0.132)


def test_no_picture_delays_the_sound_beyond_the_bound() -> None:
    clock = Clock(LOOKAHEAD_S)
    clock.fed(0, 0.0)
    clock.ready(0, 2.0)
    clock.shift(clock.gap())
    assert clock.leave_at(0) == pytest.approx(LOOKAHEAD_S + MAX_EXTRA_S)


# An engine that keeps up


def test_sound_and_pictures_leave_evenly_and_together() -> None:
    line = Line()
    line.run(4.0, on_time(90, 0.015))
    assert np.abs(np.diff([s.at for s in line.sounds]) - PACKET_S).max() <= 0.08 * PACKET_S + 0.001
    assert [s.place for s in line.sounds] == [PACKET * i for i in range(len(line.sounds))]
    assert [p.place for p in line.pictures] == [1920 * i for i in range(len(line.pictures))]
    assert max(map(abs, line.gaps())) <= 0.0011
    assert line.playout.dropped == line.playout.replaced == 0


def test_every_sample_leaves_unchanged() -> None:
    line = Line()
    line.run(2.0, on_time(45))
    heard = np.concatenate(line.heard)
    fed = np.concatenate([tone(i) for i in range(100)])
    np.testing.assert_array_equal(heard, fed[: len(heard)])
    assert len(heard) / 48_000 == pytest.approx(2.0 - LOOKAHEAD_S, abs=0.03)


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=40))
def test_sound_leaves_whole_however_it_was_cut(cuts: list[int]) -> None:
    playout, fed = Playout(25, 2), np.arange(sum(cuts), dtype=np.int16)
    at = 0
    for cut in cuts:
        playout.hear(fed[at : at + cut], at / 48_000)
        at += cut
    left = []
    now = 0.0
    while now < at / 48_000 + LOOKAHEAD_S + FIRST_S + GRACE_S / 2:
        while (taken := playout.take_sound(now)) is not None and taken[0].place is not None:
            assert taken[0].place == sum(map(len, left))
            left.append(taken[0].pcm)
        now += 0.005
    heard = np.concatenate(left) if left else fed[:0]
    np.testing.assert_array_equal(heard, fed[: at // PACKET * PACKET])


@pytest.mark.parametrize("drift", [0.97, 1.0, 1.03])
def test_a_microphone_that_runs_slow_or_fast_gathers_no_delay(drift: float) -> None:
    playout, delays = Playout(25, 2), []
    next_feed, frame = 0.0, 0
    for ms in range(60_000):
        now = ms / 1000
        if now >= next_feed:
            fed = round(next_feed / PACKET_S / drift)
            playout.hear(tone(fed), now)
            next_feed += PACKET_S * drift
            if fed % 2 == 1 and fed > 6:
                playout.show(picture(frame), now)
                frame += 1
            delays.append((playout.sound_due() or now) - now)
        while playout.take_sound(now) is not None:
            pass
        playout.take_picture(now)
    waiting = playout.clock.leave_at(playout._fed)
    assert waiting is not None
    assert 0 <= waiting - 60.0 <= LOOKAHEAD_S + MAX_EXTRA_S


def test_both_lanes_have_one_line_of_time_stamps() -> None:
    line = Line()
    line.run(3.0, on_time(30) + on_time(40, 0.06, begin=30))
    heard = {sound.place: sound.pts for sound in line.sounds}
    stamped = [p.pts / 90_000 - heard[p.place] / 48_000 for p in line.pictures if p.place in heard]
    assert stamped == pytest.approx(line.gaps(), abs=0.005)  # a late one is stamped late
    assert stamped[-10:] == pytest.approx([0.0] * 10, abs=0.003)
    assert [s.pts for s in line.sounds] == [PACKET * i for i in range(len(line.sounds))]


# Pictures that do not come in time


def test_pictures_in_bursts_leave_evenly_with_their_sound() -> None:
    """An engine that steps three frames at once."""
    line = Line()
    ready = [(at + (2 - i % 3) * FRAME_S, each) for i, (at, each) in enumerate(on_time(150))]
    line.run(6.0, ready)
    check_sound(line)
    settled = [p for p in line.pictures if p.at > 1.5]
    assert np.abs(np.diff([p.at for p in settled]) - FRAME_S).max() <= 0.08 * FRAME_S + 0.002
    assert max(map(abs, line.gaps()[40:])) <= 0.0021


def test_in_silence_the_line_moves_by_whole_packets_at_once() -> None:
    line = Line()
    line.run(1.0, on_time(20, 0.1), silence)
    late = line.delays[-1]
    assert late >= LOOKAHEAD_S - PACKET_S + 0.1
    made_up = sum(sound.place is None for sound in line.sounds)
    assert 1 <= made_up <= 5
    gaps = np.diff([s.at for s in line.sounds])
    assert gaps.max() <= PACKET_S * 1.08 + 0.001
    line.run(3.0, [(at, each) for at, each in on_time(70, 0.0, begin=25) if at > 1.0], silence)
    assert line.delays[-1] < late - 0.05


@given(st.lists(st.floats(0, 0.4), min_size=10, max_size=80))
@settings(max_examples=25)
def test_whatever_the_pictures_do_the_sound_stays_whole(lateness: list[float]) -> None:
    line = Line()
    ready = np.maximum.accumulate(
        np.arange(len(lateness)) * FRAME_S + LOOKAHEAD_S - PACKET_S + np.array(lateness)
    )
    line.run(len(lateness) * FRAME_S, [(float(at), picture(i)) for i, at in enumerate(ready)])
    check_sound(line)
    places = [p.place for p in line.pictures if p.place is not None]
    assert places == sorted(places)


# Sound that does not come


def test_sound_that_is_late_is_made_up_for_and_comes_whole() -> None:
    line = Line()
    line.run(1.0)
    line.run(0.3, sound=None)
    line.at_ms = 1300
    stopped = len(line.sounds)
    for i in range(50, 65):
        line.playout.hear(tone(i), line.now)
    line.run(1.0, sound=lambda packet: tone(packet))
    assert line.playout.replaced >= 5
    heard = [s.place for s in line.sounds if s.place is not None]
    assert heard == [PACKET * i for i in range(len(heard))]
    gaps = np.diff([s.at for s in line.sounds[:stopped]])
    assert gaps.max() <= PACKET_S + GRACE_S + 0.0011
    assert (np.diff([s.pts for s in line.sounds]) == PACKET).all()


def test_made_up_sound_fades_away() -> None:
    line = Line()
    line.run(0.1, sound=lambda packet: tone(0))
    line.run(0.7, sound=None)
    made_up = [pcm for pcm, left in zip(line.heard, line.sounds, strict=True) if left.place is None]
    peaks = [int(np.abs(pcm.astype(int)).max()) for pcm in made_up]
    assert peaks[0] > 1000
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 10


# Pictures


def test_a_stale_picture_is_dropped_when_the_next_is_due() -> None:
    line = Line()
    line.run(0.1, sound=silence)
    for i in range(3):
        line.playout.show(picture(i), line.now)
    line.run(0.04, sound=silence)
    line.at_ms = 250  # 0 at .15, 1 at .19, 2 at .23
    line.look()
    assert [p.place for p in line.pictures] == [2 * 1920]
    assert line.playout.dropped == 2


def test_a_held_picture_is_sent_again_so_that_key_frames_can_be_had() -> None:
    playout = Playout(25, 2)
    playout.hear(tone(0), 0.0)
    playout.show(picture(0), 0.0)
    first = playout.take_picture(0.15)
    assert first is not None
    assert playout.picture_due() == pytest.approx(0.15 + REPEAT_S)
    assert playout.take_picture(0.15 + REPEAT_S - 0.01) is None
    again = playout.take_picture(0.16 + REPEAT_S)
    assert again is not None
    assert again[0] is first[0]
    assert again[1] > first[1]


def test_a_repeated_frame_is_not_sent_again() -> None:
    line = Line()
    line.run(
        0.8, [(at, picture(each.index, fresh=each.index % 4 == 0)) for at, each in on_time(13)]
    )
    assert [p.place for p in line.pictures] == [0, 4 * 1920, 8 * 1920, 12 * 1920]


def test_a_fresh_frame_that_came_too_late_is_made_up_for_by_its_repeat() -> None:
    line = Line()
    ready = on_time(10)
    ready[4] = (ready[4][0] + 0.25, picture(4))  # nobody sees it
    ready[5:] = [(at + 0.25, picture(each.index, fresh=False)) for at, each in ready[5:]]
    line.run(0.8, ready)
    assert 4 * 1920 not in [p.place for p in line.pictures]
    assert [p.place for p in line.pictures][:5][-1] > 4 * 1920


def test_a_late_picture_is_shown_when_there_was_none_for_long() -> None:
    line = Line()
    line.run(1.0, [(0.95, picture(2))])
    assert [p.place for p in line.pictures] == [2 * 1920]
    assert line.pictures[0].pts / 90_000 == pytest.approx(0.95 - LOOKAHEAD_S - FIRST_S, abs=0.01)


# Interruptions


def interrupted(line: Line) -> int:
    """Interrupt; the place up to which all is cut off."""
    line.playout.interrupt()
    return len(line.delays) * PACKET


def test_an_interruption_is_silent_within_one_packet() -> None:
    line = Line()
    line.run(1.0, on_time(20))
    left = len(line.heard)
    cut = interrupted(line)
    line.run(0.3, sound=silence)
    first, *rest = line.heard[left:]
    assert np.abs(first[-20:].astype(int)).max() < 600
    assert abs(int(first[0]) - int(line.heard[left - 1][-1])) < 600  # it fades from where it was
    assert not np.concatenate(rest).any()
    assert [s.place for s in line.sounds] == [PACKET * i for i in range(len(line.sounds))]
    assert line.sounds[-1].place is not None
    assert line.sounds[-1].place > cut


def test_pictures_of_what_was_cut_off_never_come_out() -> None:
    line = Line()
    line.run(1.0, on_time(24))
    cut = interrupted(line)
    seen = len(line.pictures)
    old = [(line.now + 0.001 * i, picture(i)) for i in range(20, cut // 1920)]
    rest = (line.now + 0.03, picture(99, placed=False))
    line.run(0.5, [*old, rest, *on_time(30, begin=cut // 1920)], silence)
    after = line.pictures[seen:]
    assert [p.place for p in after if p.place is not None and p.place < cut] == []
    assert (after[0].place, after[0].at) == (None, pytest.approx(1.03, abs=0.002))
    assert len(after) > 5


def test_a_picture_of_rest_comes_out_at_once_though_others_wait() -> None:
    line = Line()
    line.run(0.5, on_time(9))
    interrupted(line)
    line.playout.show(picture(50, placed=False), line.now)
    assert line.playout.picture_due() == -np.inf
    line.look()
    assert line.pictures[-1].place is None


def test_a_fresh_frame_interrupted_while_it_waits_is_made_up_for_by_its_repeat() -> None:
    line = Line()
    line.run(0.48, on_time(8))
    line.playout.show(picture(9), line.now)  # waits for its sound, and dies
    cut = interrupted(line)
    line.run(0.4, [(line.now, picture(cut // 1920 + i, fresh=False)) for i in range(3)], silence)
    assert line.pictures[-1].place == cut


def test_the_engine_may_say_nothing_new_after_an_interruption() -> None:
    line = Line()
    line.run(0.5, on_time(9))
    seen = line.playout.dropped
    cut = interrupted(line)
    line.playout.show(picture(cut // 1920 - 1), line.now)
    assert line.playout.dropped > seen


# A pause


def test_after_a_pause_the_line_goes_on_from_the_present() -> None:
    line = Line()
    line.run(1.0, on_time(22))
    sent, began = line.sounds[-1], line.playout.began
    line.at_ms += 60_000  # nobody received for a minute
    line.playout.restart()
    assert line.playout.sound_due() is None
    resumed = len(line.sounds)
    line.run(1.0, [(60 + at, each) for at, each in on_time(24, begin=25)])
    after = line.sounds[resumed:]
    assert after[0].pts == sent.pts + PACKET
    assert [s.place for s in after] == [sent.place + PACKET * (i + 1) for i in range(len(after))]  # type: ignore[operator]
    assert np.abs(np.diff([s.at for s in after]) - PACKET_S).max() <= 0.08 * PACKET_S + 0.001
    assert after[0].at < 61.0 + LOOKAHEAD_S + FIRST_S + 0.001
    assert max(map(abs, line.gaps())) <= 0.0021
    assert (np.diff([p.pts for p in line.pictures]) > 0).all()
    assert began is not None
    assert line.playout.began is not None  # time stamps stand for the present again
    assert line.playout.began + after[0].pts / 48_000 == pytest.approx(after[0].at, abs=0.001)


# Bounds


def test_queues_stay_bounded_when_nobody_takes() -> None:
    playout = Playout(25, 2)
    for i in range(2000):
        playout.hear(tone(i), i * PACKET_S)
        if i % 2:
            playout.show(picture(i // 2), i * PACKET_S)
    now = 2000 * PACKET_S
    packets = list(iter(lambda: playout.take_sound(now), None))
    assert len(packets) * PACKET_S <= LIMIT_S + LOOKAHEAD_S + FIRST_S + PACKET_S
    assert len(playout._sounds) <= (LOOKAHEAD_S + FIRST_S) / PACKET_S + 1
    taken = playout.take_picture(now)
    assert taken is not None
    assert taken[0].index >= 995
    assert len(playout._pictures) <= 5


def test_time_stamps_step_over_what_was_too_old_to_send() -> None:
    line = Line()
    line.run(1.0, on_time(20))
    line.run(0.0)
    for i in range(50, 100):  # the loop was blocked for a second
        line.playout.hear(tone(i), i * PACKET_S)
    sent = line.sounds[-1]
    line.at_ms = 2000
    line.look()
    late = [s for s in line.sounds if s.at == 2.0]
    assert len(late) * PACKET_S <= LIMIT_S + PACKET_S
    assert late[0].pts - sent.pts == late[0].place - sent.place  # type: ignore[operator]


# Speech that is there ahead of time


def test_speech_at_hand_does_not_wait_for_the_silence_before_it_to_leave() -> None:
    line = Line()
    line.run(1.0, on_time(25), silence)
    waits = line.playout.clock.leave_at(50 * PACKET)
    left_out = line.playout.leap(50 * PACKET, 48_000, line.now)
    leaves = line.playout.clock.leave_at(50 * PACKET)
    assert waits is not None
    assert leaves is not None
    assert 0.08 <= left_out / 48_000 <= 0.12
    assert waits - leaves == pytest.approx(left_out / 48_000)
    line.look()
    stamps = [sound.pts for sound in line.sounds]
    assert np.diff(stamps).tolist() == [PACKET] * (len(stamps) - 1)


def test_silence_within_speech_and_sound_are_never_left_out() -> None:
    line = Line()
    line.run(1.0, on_time(25), silence)
    assert line.playout.leap(line.playout.next_place, 48_000, line.now) == 0
    assert line.playout.leap(50 * PACKET, PACKET - 1, line.now) == 0
    line.run(0.4, on_time(10, begin=25))
    assert line.playout.leap(70 * PACKET, 48_000, line.now) == 0
    assert Playout(25, 2).leap(0, 48_000, 0.0) == 0
