"""Another face in the middle of a stream: it goes on as if it had been there, and the laws hold."""

from __future__ import annotations

import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.config import EngineConfig
from engine.enroll import Identity
from engine.types import Pcm, Quality, VideoFrame
from tests.contracts.shared_graphs import SharedGraphs

HOP, FRAMES, CHANGE = 640, 12, 5
SEED = 3


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load(EngineConfig(threads=1, paint_every=3), SharedGraphs())


@pytest.fixture(scope="module")
def people(engine: AvatarEngine, portrait: np.ndarray) -> tuple[Identity, Identity]:
    """Two people, whose frames have two sizes."""
    return engine.enroll(portrait), engine.enroll(np.ascontiguousarray(portrait[:, ::-1][40:]))


@pytest.fixture(scope="module")
def sound() -> Pcm:
    rng = np.random.default_rng(1)
    loud = np.repeat(rng.uniform(0, 0.5, FRAMES), HOP)
    return (loud * rng.standard_normal(FRAMES * HOP)).clip(-1, 1).astype(np.float32)


def changing(
    engine: AvatarEngine, people: tuple[Identity, Identity], sound: Pcm, cut: int = HOP
) -> list[VideoFrame]:
    """A stream that shows the second of the people from frame `CHANGE` on."""
    state = engine.start(people[0], seed=SEED)
    frames = []
    heard = (CHANGE + engine.config.stream.lookahead_frames) * HOP
    for part, who in ((sound[:heard], people[1]), (sound[heard:], None)):
        for i in range(0, len(part), cut):
            frames += engine.step(state, part[i : i + cut])
        if who is not None:
            assert state.next_index == CHANGE
            engine.set_identity(state, who)
    return frames + engine.flush(state)


@pytest.fixture(scope="module")
def changed(
    engine: AvatarEngine, people: tuple[Identity, Identity], sound: Pcm
) -> list[VideoFrame]:
    return changing(engine, people, sound)


def beginning_there(engine: AvatarEngine, who: Identity, sound: Pcm) -> list[VideoFrame]:
    """A stream of `who` that heard everything and begins to draw at frame `CHANGE`."""
    state = engine.start(who, seed=SEED)
    engine.resume(state, CHANGE, engine.pack(engine.start(who, seed=SEED)))
    return engine.step(state, sound) + engine.flush(state)


def same(one: list[VideoFrame], other: list[VideoFrame]) -> None:
    assert [(f.index, f.fresh) for f in one] == [(f.index, f.fresh) for f in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)


def test_until_the_change_it_is_the_one_and_from_then_on_the_other(
    engine: AvatarEngine,
    people: tuple[Identity, Identity],
    sound: Pcm,
    changed: list[VideoFrame],
) -> None:
    state = engine.start(people[0], seed=SEED)
    unchanged = engine.step(state, sound) + engine.flush(state)
    same(changed[:CHANGE], unchanged[:CHANGE])
    same(changed[CHANGE:], beginning_there(engine, people[1], sound))
    assert changed[CHANGE].fresh
    assert changed[CHANGE - 1].rgb.shape != changed[CHANGE].rgb.shape
    for a, b in zip(changed, unchanged, strict=True):  # what was heard and the motion go on
        assert a.motion is not None
        assert b.motion is not None
        np.testing.assert_array_equal(a.motion.coefficients, b.motion.coefficients)


@pytest.mark.parametrize("cut", [161, 1000])
def test_splitting_the_sound_never_changes_the_frames(
    engine: AvatarEngine,
    people: tuple[Identity, Identity],
    sound: Pcm,
    changed: list[VideoFrame],
    cut: int,
) -> None:
    same(changing(engine, people, sound, cut), changed)


def test_later_sound_never_changes_earlier_frames(
    engine: AvatarEngine,
    people: tuple[Identity, Identity],
    sound: Pcm,
    changed: list[VideoFrame],
) -> None:
    other = sound.copy()
    other[9 * HOP :] = 0
    decided = 9 - engine.config.stream.lookahead_frames
    two = changing(engine, people, other)
    same(changed[:decided], two[:decided])
    assert any((a.rgb != b.rgb).any() for a, b in zip(changed[9:], two[9:], strict=True))


def test_a_change_shows_at_once_though_the_quality_lets_frames_be_repeated(
    engine: AvatarEngine, people: tuple[Identity, Identity], sound: Pcm
) -> None:
    state = engine.start(people[0], seed=SEED)
    engine.set_quality(state, Quality(draw_every=4))
    frames = engine.step(state, sound[: 8 * HOP])
    assert (state.next_index, [f.fresh for f in frames]) == (6, [i % 4 == 0 for i in range(6)])
    engine.set_identity(state, people[1])
    after = engine.step(state, sound[8 * HOP :])
    assert [f.fresh for f in after] == [True, False, True, False]
    assert after[0].rgb.shape != frames[0].rgb.shape
