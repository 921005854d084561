"""The queue of sound before the engine, and frames joined with their sound."""

from __future__ import annotations

import time
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Quality
from server.beeps import BeepLog
from server.clips import Chunk, Clip
from server.engine_stream import EngineStream
from server.intake import Pcm48
from server.metrics import Metrics
from tests.server.fake_engine import FakeEngine

IMAGE = np.full((64, 64, 3), 77, dtype=np.uint8)


class Bench:
    """A stream, and what it delivered."""

    def __init__(self, engine: FakeEngine | None = None, beeps: BeepLog | None = None) -> None:
        self.engine = engine or FakeEngine(side=64)
        self.clips: list[Clip] = []
        self.errors: list[Exception] = []
        self.metrics = Metrics()
        self.state = self.engine.start(self.engine.enroll(IMAGE))
        self.stream = EngineStream(
            self.engine,
            self.state,
            self.clips.extend,
            self.errors.append,
            metrics=self.metrics,
            beeps=("s", beeps) if beeps else None,
        )

    def push(self, pcm: Pcm48, generation: int = 0, queued: float = 1.0) -> None:
        self.stream.push(Chunk(pcm, generation, queued - 0.001, queued))

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
def test_every_frame_carries_exactly_its_own_sound(cuts: list[int]) -> None:
    bench, at = Bench(), 0
    for cut in cuts:
        bench.push(ramp(at, cut))
        bench.work()
        at += cut
    assert [clip.index for clip in bench.clips] == list(range(len(bench.clips)))
    assert len(bench.clips) == max(0, at // 3 // 640 - 2)
    for clip in bench.clips:
        np.testing.assert_array_equal(clip.sound, ramp(clip.index * 1920, 1920))


def test_a_frame_comes_with_the_packet_that_completes_its_look_ahead() -> None:
    bench = Bench()
    made = []
    for i in range(10):
        bench.push(ramp(i * 960, 960))
        bench.work()
        made.append(len(bench.clips))
    assert made == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3]


def test_overload_drops_all_that_waits_but_the_newest() -> None:
    bench = Bench()
    for i in range(21):  # 420 ms; the bound is 400
        bench.push(ramp(i * 960, 960))
    assert bench.stream.dropped_s == pytest.approx(0.4)
    for i in range(21, 30):
        bench.push(ramp(i * 960, 960))
    bench.work()
    np.testing.assert_array_equal(bench.clips[0].sound, ramp(20 * 960, 1920))
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


def test_an_interruption_drops_what_waits_and_marks_what_the_engine_holds() -> None:
    bench = Bench()
    for i in range(8):  # two frames are made, two are held by the look-ahead
        bench.push(ramp(i * 960, 960))
    bench.work()
    bench.push(ramp(9 * 960, 960))  # waits, and dies
    bench.stream.interrupt()
    assert bench.stream.deadline() is None
    for i in range(20, 30):
        bench.push(ramp(i * 960, 960), generation=1)
    bench.work()
    assert [clip.generation for clip in bench.clips] == [0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(bench.clips[4].sound, ramp(20 * 960, 1920))


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
    assert bench.clips == []
    state = weakref.ref(bench.state)
    del bench.state
    assert state() is None


def test_a_repeated_frame_is_passed_on_as_one() -> None:
    bench = Bench()
    bench.engine.set_quality(bench.state, Quality(draw_every=4))
    bench.push(ramp(0, 1920 * 10), queued=time.monotonic())  # no reason to change the quality
    bench.work()
    assert [clip.fresh for clip in bench.clips] == [i % 4 == 0 for i in range(8)]


def test_a_beep_travels_with_the_frame_that_holds_its_onset() -> None:
    log = BeepLog()
    bench = Bench(beeps=log)
    pcm = np.zeros(20 * 960, dtype=np.int16)
    pcm[5000:6440] = 15_000
    for i in range(20):
        bench.push(pcm[i * 960 : (i + 1) * 960], queued=i * 0.02)
        bench.work()
    [clip] = [clip for clip in bench.clips if clip.beep]
    assert clip.index == 5000 // 1920
    assert int(np.argmax(clip.sound != 0)) == 5000 % 1920
    [event] = log.events()
    assert event["sample"] == 5000
    assert clip.beep is not None
    assert (clip.beep.pcm, clip.beep.mic_packet) == (pytest.approx(0.1), pytest.approx(0.099))
    assert clip.beep.frame_made == clip.made


def test_a_prompt_is_shown_from_the_next_frame_on() -> None:
    bench = Bench()
    bench.push(ramp(0, 1920 * 4))
    bench.work()
    assert len(bench.clips) == 2
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
    bench.stream.interrupt()
    bench.push(ramp(0, 1920), generation=1)
    bench.work()
    assert bench.state.prompts == [(0, "sad 1")]
    bench.stream.close()
    bench.stream.set_prompt(bench.engine.read_prompt("smile"))
    bench.push(ramp(0, 1920), generation=1)
    bench.work()
    assert len(bench.state.prompts) == 1
