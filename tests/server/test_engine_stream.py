"""The queue of sound before the engine, and frames joined with their place on the line of sound."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Strengths
from engine.types import Quality, RgbImage
from server.live.beeps import BeepLog
from server.live.clips import Chunk, Picture
from server.live.engine_stream import EngineStream
from server.metrics import Metrics
from server.sound.intake import Pcm48
from tests.server.fake_engine import FakeEngine, FakeState

BEGIN = 96_000  # a place on the line
IMAGE = np.full((64, 64, 3), 77, dtype=np.uint8)


class Bench:
    """A stream, and what it delivered."""

    def __init__(self, engine: FakeEngine | None = None, beeps: BeepLog | None = None) -> None:
        self.engine = engine or FakeEngine(side=64)
        self.pictures: list[Picture] = []
        self.errors: list[Exception] = []
        self.metrics = Metrics()
        self.place = 0
        self.leaves_at: Callable[[int], float | None] = lambda place: None
        self.state = self.engine.start(self.engine.enroll(IMAGE))
        self.stream = EngineStream(
            self.engine,
            self.state,
            self.pictures.extend,
            self.errors.append,
            metrics=self.metrics,
            leaves_at=lambda place: self.leaves_at(place),
            beeps=("s", beeps) if beeps else None,
        )

    def push(self, pcm: Pcm48, place: int | None = None, queued: float | None = None) -> None:
        """Queue sound that is at `place` on the line, or goes on where the last one ended."""
        place = self.place if place is None else place
        queued = time.monotonic() if queued is None else queued
        self.stream.push(Chunk(pcm, place, queued - 0.001, queued))
        self.place = place + len(pcm)

    def step(self) -> None:
        """One step, as the worker makes it."""
        if (step := self.stream.begin()) is not None:
            [frames] = self.engine.step_many([step])
            self.stream.finish(frames, time.monotonic())

    def work(self) -> None:
        while self.stream.deadline() is not None:
            self.step()


def ramp(begin: int, samples: int) -> Pcm48:
    return np.asarray((np.arange(begin, begin + samples) // 7) % 20_000, dtype=np.int16)


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=30))
def test_every_frame_has_the_place_of_its_own_sound(cuts: list[int]) -> None:
    bench, at = Bench(), 0
    for cut in cuts:
        bench.push(ramp(at, cut), BEGIN + at)
        bench.work()
        at += cut
    assert [picture.index for picture in bench.pictures] == list(range(len(bench.pictures)))
    assert len(bench.pictures) == max(0, at // 3 // 640 - 2)
    assert [p.place for p in bench.pictures] == [BEGIN + 1920 * p.index for p in bench.pictures]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=12))
def test_a_gap_on_the_line_moves_the_places_of_the_frames_behind_it(
    runs: list[tuple[int, int]],
) -> None:
    """Runs of whole frames of sound with some left out between; each frame keeps its own place."""
    bench, wanted = Bench(), []
    for frames, gap in runs:
        for _ in range(2 * frames):
            bench.push(ramp(bench.place, 960))
        bench.work()
        wanted += [bench.place - 1920 * (frames - i) for i in range(frames)]
        bench.place += 960 * gap
    assert [picture.place for picture in bench.pictures] == wanted[: max(0, len(wanted) - 2)]


def test_a_frame_comes_with_the_packet_that_completes_its_look_ahead() -> None:
    bench = Bench()
    made = []
    for i in range(10):
        bench.push(ramp(i * 960, 960))
        bench.work()
        made.append(len(bench.pictures))
    assert made == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3]


def test_overload_drops_all_that_waits_but_the_newest() -> None:
    bench = Bench()
    for i in range(21):  # 420 ms; the bound is 400
        bench.push(ramp(i * 960, 960))
    assert bench.stream.dropped_s == pytest.approx(0.4)
    for i in range(21, 30):
        bench.push(ramp(i * 960, 960))
    bench.work()
    assert [p.place for p in bench.pictures] == [(20 + 2 * i) * 960 for i in range(3)]
    dropped = bench.metrics.registry.get_sample_value(
        "portraittalk_dropped_total", {"queue": "sound"}
    )
    assert dropped == 20


def test_one_run_takes_at_most_one_frame_of_sound() -> None:
    bench = Bench()
    for i in range(10):
        bench.push(ramp(i * 960, 960))
    bench.step()
    assert len(bench.state.pcm) == 640  # one frame of sound at 16 kHz
    bench.step()
    assert len(bench.state.pcm) == 2 * 640


def test_the_deadline_is_the_oldest_chunk() -> None:
    bench = Bench()
    assert bench.stream.deadline() is None
    bench.push(ramp(0, 960), queued=5.0)
    bench.push(ramp(0, 960), queued=6.0)
    assert bench.stream.deadline() == 5.0


def test_an_interruption_drops_what_waits_and_lets_the_mouth_come_to_rest_at_once() -> None:
    bench = Bench()
    for i in range(8):  # two frames are made, two are held by the look-ahead
        bench.push(ramp(i * 960, 960))
    bench.work()
    bench.push(ramp(8 * 960, 960))  # waits, and dies
    bench.stream.interrupt(bench.place)
    bench.work()  # without any further sound
    rest = bench.pictures[-1]
    assert (rest.place, rest.fresh) == (None, True)
    assert not bench.state.pcm.any()
    for i in range(20, 30):
        bench.push(ramp(i * 960, 960), i * 960)
    bench.work()
    shown = [(picture.place, picture.fresh) for picture in bench.pictures]
    assert shown[:2] == [(0, True), (1920, True)]
    assert shown[2:4] == [(2 * 1920, False), (3 * 1920, False)]  # stale: they are not drawn
    flush = shown[4:-3]
    assert [place for place, _ in flush] == [None] * len(flush)
    assert flush
    assert all(fresh for _, fresh in flush)
    assert bench.state.settled == [2]  # before the first frame that is stale comes out
    assert [place for place, _ in shown[-3:]] == [20 * 960, 22 * 960, 24 * 960]


def test_interrupting_again_and_again_never_grows_the_queue() -> None:
    bench = Bench()
    for _ in range(20):
        bench.push(ramp(0, 1920))
        bench.stream.interrupt(bench.place)
    steps = 0
    while bench.stream.deadline() is not None:
        bench.step()
        steps += 1
    assert steps * 0.04 <= 0.4


def test_a_picture_whose_sound_left_long_ago_is_not_drawn_unless_the_viewer_is_blind() -> None:
    bench = Bench()
    bench.leaves_at = lambda place: time.monotonic() - 1.0
    for i in range(40):
        bench.push(ramp(i * 960, 960))
        bench.work()
    fresh = [picture.fresh for picture in bench.pictures]
    assert fresh[0] is True  # nothing was ever drawn
    assert not any(fresh[1:])
    bench.leaves_at = lambda place: time.monotonic() + 0.1
    for i in range(40, 44):
        bench.push(ramp(i * 960, 960))
        bench.work()
    assert [picture.fresh for picture in bench.pictures[-2:]] == [True, True]


def test_sound_that_waited_through_a_pause_is_no_sign_of_overload() -> None:
    bench = Bench()
    for i in range(4):
        bench.push(ramp(i * 960, 960), queued=time.monotonic() - 30)
    bench.stream.go_on()
    bench.work()
    assert bench.state.quality == Quality()
    assert len(bench.state.pcm) == 2 * 640  # nothing was lost by it


def test_a_failing_engine_closes_its_stream_and_says_why() -> None:
    bench = Bench(FakeEngine(fail_at=0))
    for i in range(6):
        bench.push(ramp(i * 960, 960))
    with pytest.raises(RuntimeError, match="frame 0") as caught:
        bench.work()
    bench.stream.fail(caught.value)
    assert bench.errors == [caught.value]
    bench.push(ramp(0, 960))
    assert bench.stream.deadline() is None


def test_a_closed_stream_lets_go_of_its_state_and_takes_no_more() -> None:
    bench = Bench()
    bench.push(ramp(0, 960))
    bench.stream.close()
    bench.push(ramp(0, 960))
    assert bench.stream.deadline() is None
    bench.step()
    assert bench.pictures == []
    state = weakref.ref(bench.state)
    del bench.state
    assert state() is None


def test_a_repeated_frame_is_passed_on_as_one() -> None:
    bench = Bench()
    bench.engine.set_quality(bench.state, Quality(draw_every=4))
    bench.push(ramp(0, 1920 * 10), queued=time.monotonic())  # no reason to change the quality
    bench.work()
    assert [picture.fresh for picture in bench.pictures] == [i % 4 == 0 for i in range(8)]


def test_a_beep_travels_with_the_frame_that_holds_its_onset() -> None:
    log = BeepLog()
    bench = Bench(beeps=log)
    pcm = np.zeros(20 * 960, dtype=np.int16)
    pcm[5000:6440] = 15_000
    for i in range(20):
        bench.push(pcm[i * 960 : (i + 1) * 960], queued=i * 0.02)
        bench.work()
    [picture] = [picture for picture in bench.pictures if picture.beep]
    assert (picture.index, picture.place) == (5000 // 1920, 5000 // 1920 * 1920)
    [event] = log.events()
    assert event["sample"] == 5000
    assert picture.beep is not None
    assert (picture.beep.pcm, picture.beep.mic_packet) == (pytest.approx(0.1), pytest.approx(0.099))
    assert picture.beep.frame_made == picture.made


def test_words_and_strengths_of_the_same_frame_both_arrive() -> None:
    bench = Bench()
    for asked in ("sad", Strengths(text=0.5), "smile 0.5", Strengths(text=0.2)):
        read = bench.engine.read_prompt(asked) if isinstance(asked, str) else asked
        bench.stream.set_prompt(read)
    bench.push(ramp(0, 1920))
    bench.work()
    assert bench.state.prompts == [(0, "smile 0.5"), (0, str(Strengths(text=0.2)))]


def test_a_prompt_is_shown_from_the_next_frame_on() -> None:
    bench = Bench()
    bench.push(ramp(0, 1920 * 4))
    bench.work()
    assert len(bench.pictures) == 2
    for text in ("sad", "smile 0.5"):  # the newer one replaces the one that waits
        bench.stream.set_prompt(bench.engine.read_prompt(text))
    assert bench.state.prompts == []  # the state belongs to the engine thread
    bench.push(ramp(1920 * 4, 1920))
    bench.work()
    bench.push(ramp(1920 * 5, 1920))
    bench.work()
    assert bench.state.prompts == [(2, "smile 0.5")]


def test_an_interruption_keeps_the_prompt_and_the_end_drops_it() -> None:
    bench = Bench()
    bench.push(ramp(0, 960))
    bench.stream.set_prompt(bench.engine.read_prompt("sad"))
    bench.stream.interrupt(bench.place)
    bench.push(ramp(0, 1920))
    bench.work()
    assert bench.state.prompts == [(0, "sad 1")]
    bench.stream.close()
    bench.stream.set_prompt(bench.engine.read_prompt("smile"))
    bench.push(ramp(0, 1920))
    bench.work()
    assert len(bench.state.prompts) == 1


def test_another_face_is_shown_from_the_next_frame_on() -> None:
    bench = Bench()
    for i in range(8):
        bench.push(ramp(i * 960, 960))
    bench.work()
    assert len(bench.pictures) == 2
    bench.stream.set_identity(bench.engine.enroll(np.asarray(IMAGE + 100, np.uint8)))
    bench.push(ramp(8 * 960, 1920))
    bench.work()
    assert [int(picture.rgb[0, 0, 0]) for picture in bench.pictures] == [77, 77, 177]
    assert [picture.place for picture in bench.pictures] == [0, 1920, 3840]


def test_another_face_that_the_engine_cannot_show_ends_this_stream_alone() -> None:
    class Refusing(FakeEngine):
        def set_identity(self, state: FakeState, identity: RgbImage) -> None:
            raise ValueError("no such face")

    bench = Bench(Refusing(side=64))
    bench.stream.set_identity(IMAGE)
    bench.push(ramp(0, 1920))
    with pytest.raises(ValueError, match="no such face"):
        bench.step()
