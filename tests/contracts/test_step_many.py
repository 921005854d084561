"""Many streams in one step: each stream's frames are its own, whoever shares its batch."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.enroll import Identity
from engine.face.image_file import decode_image
from engine.state import StreamState
from engine.types import Pcm, Quality, VideoFrame
from server.settings import BUNDLED_PORTRAIT
from tests.contracts.shared_graphs import SharedGraphs

HOP = 640
FRAMES = 9
SEEDS = range(4)


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    """For four streams in one step, on either of two threads."""
    return AvatarEngine.load(EngineConfig(threads=1, batch=8, engine_threads=2))


@pytest.fixture(scope="module")
def people(engine: AvatarEngine) -> list[Identity]:
    """Two people, whose frames have two sizes."""
    rgb = decode_image(BUNDLED_PORTRAIT.read_bytes())
    return [engine.enroll(rgb), engine.enroll(np.ascontiguousarray(rgb[:, ::-1][40:]))]


def sound(seed: int) -> Pcm:
    """Bursts of noise, so that lips open and a few frames are painted early."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0, 0.5, FRAMES), HOP)
    return (loud * rng.standard_normal(FRAMES * HOP)).clip(-1, 1).astype(np.float32)


def begin(engine: AvatarEngine, people: list[Identity], seed: int) -> StreamState:
    """Streams that differ in who is shown, in what is expressed and in their quality."""
    state = engine.start(people[seed % 2], seed=seed)
    if seed == 1:
        engine.set_prompt(state, engine.read_prompt("smile, eyes closed 0.5"), at=3)
    if seed == 2:
        engine.set_quality(state, Quality(paint_every=5, draw_every=2))
    return state


@pytest.fixture(scope="module")
def alone(engine: AvatarEngine, people: list[Identity]) -> list[list[VideoFrame]]:
    made = []
    for seed in SEEDS:
        state = begin(engine, people, seed)
        made.append([*engine.step(state, sound(seed)), *engine.flush(state)])
    return made


def same(one: list[VideoFrame], other: list[VideoFrame]) -> None:
    assert [(f.index, f.fresh) for f in one] == [(f.index, f.fresh) for f in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 0), (1,)])
def test_company_and_its_order_never_change_a_frame(
    engine: AvatarEngine,
    people: list[Identity],
    alone: list[list[VideoFrame]],
    order: tuple[int, ...],
) -> None:
    states = {seed: begin(engine, people, seed) for seed in order}
    frames: dict[int, list[VideoFrame]] = {seed: [] for seed in order}
    for start in range(0, FRAMES * HOP, HOP):
        rows = [(states[seed], sound(seed)[start : start + HOP]) for seed in order]
        for seed, made in zip(order, engine.step_many(rows), strict=True):
            frames[seed] += made
    for seed in order:
        frames[seed] += engine.flush(states[seed])
        same(frames[seed], alone[seed])


def test_streams_join_leave_and_bring_any_length_of_sound(
    engine: AvatarEngine, people: list[Identity], alone: list[list[VideoFrame]]
) -> None:
    rng = np.random.default_rng(9)
    states = [begin(engine, people, seed) for seed in SEEDS]
    frames: list[list[VideoFrame]] = [[] for _ in SEEDS]
    at = [0] * len(SEEDS)
    while any(here < FRAMES * HOP for here in at):
        company = rng.permutation([i for i in SEEDS if at[i] < FRAMES * HOP])[: rng.integers(1, 5)]
        rows = []
        for i in company:
            length = int(rng.integers(1, 3 * HOP))
            rows.append((states[i], sound(i)[at[i] : at[i] + length]))
            at[i] += length
        for i, made in zip(company, engine.step_many(rows), strict=True):
            frames[i] += made
    for i in SEEDS:
        frames[i] += engine.flush(states[i])
        same(frames[i], alone[i])


def test_threads_that_step_side_by_side_never_change_a_frame(
    engine: AvatarEngine, people: list[Identity], alone: list[list[VideoFrame]]
) -> None:
    """Streams go from thread to thread, as a server hands them out."""
    states = [begin(engine, people, seed) for seed in SEEDS]
    frames: list[list[VideoFrame]] = [[] for _ in SEEDS]
    together = threading.Barrier(2, timeout=30)

    def step(turn: int, seeds: Sequence[int]) -> None:
        rows = [(states[i], sound(i)[turn * HOP : (turn + 1) * HOP]) for i in seeds]
        together.wait()
        for i, made in zip(seeds, engine.step_many(rows), strict=True):
            frames[i] += made

    with ThreadPoolExecutor(2) as pool:
        for turn in range(FRAMES):
            pair = turn % 4, (turn + 1) % 4
            rest = [i for i in SEEDS if i not in pair]
            for work in [pool.submit(step, turn, seeds) for seeds in (pair, rest)]:
                work.result()
    for i in SEEDS:
        frames[i] += engine.flush(states[i])
        same(frames[i], alone[i])


def test_nobody_and_nothing_to_hear_make_no_frames(
    engine: AvatarEngine, people: list[Identity]
) -> None:
    assert engine.step_many([]) == []
    nothing = np.zeros(0, np.float32)
    assert engine.step_many([(begin(engine, people, 0), nothing)]) == [[]]


def test_a_stream_takes_one_step_at_a_time(engine: AvatarEngine, people: list[Identity]) -> None:
    state = begin(engine, people, 0)
    with pytest.raises(ValueError, match="one step at a time"):
        engine.step_many([(state, sound(0)), (state, sound(0))])
    assert len(engine.step(state, sound(0))) == FRAMES - 2  # nothing of it was taken


@pytest.mark.parametrize("samples", [1, 100, 639, 640, 641, 1921])
def test_step_and_flush_give_a_frame_for_every_hop_begun(
    engine: AvatarEngine, people: list[Identity], samples: int
) -> None:
    state = engine.start(people[0])
    pcm = sound(5)[:samples]
    frames = [*engine.step(state, pcm[: samples // 2]), *engine.step(state, pcm[samples // 2 :])]
    frames += engine.flush(state)
    assert [frame.index for frame in frames] == list(range(-(-samples // HOP)))


def test_in_half_precision_company_changes_a_frame_by_rounding_alone(
    people: list[Identity],
) -> None:
    """The backend's own choice of arithmetic, bf16 where this CPU has it: at most 2 of 255."""
    rows = [(seed, sound(seed)[: 5 * HOP]) for seed in range(2)]
    pairs = load_backend("openvino", threads=1, rows=2)
    engines = [
        AvatarEngine.load(EngineConfig(threads=1), runtime)
        for runtime in (SharedGraphs(fast=pairs.fast), pairs)
    ]
    one, two = (
        [
            [frame.rgb.astype(int) for frame in frames]
            for frames in made.step_many([(made.start(people[0], seed=s), x) for s, x in rows])
        ]
        for made in engines
    )
    for a, b in zip(itertools.chain(*one), itertools.chain(*two), strict=True):
        assert np.abs(a - b).max() <= 2
