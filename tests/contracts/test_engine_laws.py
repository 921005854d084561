"""The two laws for the whole engine, with the embedded weights and a real portrait."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.config import EngineConfig
from engine.drawing import OPENED, STILL_FRAMES
from engine.enroll import Identity
from engine.errors import PortraitRefused, PromptRefused
from engine.face import arkit
from engine.types import Quality
from tests.contracts.shared_graphs import SharedGraphs

HOP = 640


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load(EngineConfig())


@pytest.fixture(scope="module")
def identity(engine: AvatarEngine, portrait: np.ndarray) -> Identity:
    return engine.enroll(portrait)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Syllables of one vowel, three a second: lips and head move."""
    t = np.arange(20 * HOP) / 16_000
    loud = np.clip(np.sin(2 * np.pi * 3 * t), 0, 1)
    turn = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 1.3 * t)) / 16_000
    formants = np.array([600, 1200, 2600])
    harmonics = [
        np.exp(-np.square((120 * k - formants) / 150)).sum() * np.sin(k * turn)
        for k in range(1, 26)
    ]
    return (0.15 * loud * np.sum(harmonics, 0)).astype(np.float32)


def whole(engine: AvatarEngine, identity: Identity, pcm: np.ndarray, seed: int = 3) -> np.ndarray:
    state = engine.start(identity, seed=seed)
    frames = engine.step(state, pcm) + engine.flush(state)
    assert [f.index for f in frames] == list(range(len(frames)))
    return np.stack([f.rgb for f in frames])


@pytest.fixture(scope="module")
def alone(engine: AvatarEngine, identity: Identity, sound: np.ndarray) -> np.ndarray:
    """The frames (20, H, W, 3) of the sound, drawn in one step with nobody else about."""
    frames = whole(engine, identity, sound)
    frames.setflags(write=False)
    return frames


@pytest.mark.parametrize("cut", [161, 640, 1000, 7000])
def test_splitting_the_sound_never_changes_the_frames(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, alone: np.ndarray, cut: int
) -> None:
    state = engine.start(identity, seed=3)
    frames = [f for i in range(0, len(sound), cut) for f in engine.step(state, sound[i : i + cut])]
    frames += engine.flush(state)
    np.testing.assert_array_equal(np.stack([f.rgb for f in frames]), alone)


def test_later_sound_never_changes_earlier_frames(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, alone: np.ndarray
) -> None:
    other = sound.copy()
    other[12 * HOP :] = 0
    decided = 12 - engine.config.stream.lookahead_frames
    frames = whole(engine, identity, other)
    np.testing.assert_array_equal(frames[:decided], alone[:decided])
    assert (frames[decided + 4 :] != alone[decided + 4 :]).any()


def test_a_frame_comes_out_once_its_look_ahead_was_heard(
    engine: AvatarEngine, identity: Identity
) -> None:
    state = engine.start(identity)
    need = (1 + engine.config.stream.lookahead_frames) * HOP
    assert engine.step(state, np.zeros(need - 1, np.float32)) == []
    assert [f.index for f in engine.step(state, np.zeros(1, np.float32))] == [0]


def test_the_same_seed_gives_the_same_stream_and_another_another(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, alone: np.ndarray
) -> None:
    np.testing.assert_array_equal(whole(engine, identity, sound, 3), alone)
    assert (whole(engine, identity, sound, 6) != alone).any()


def test_enrolling_beside_a_stream_changes_neither(
    engine: AvatarEngine,
    identity: Identity,
    portrait: np.ndarray,
    sound: np.ndarray,
    alone: np.ndarray,
) -> None:
    with ThreadPoolExecutor(1) as other:
        beside = [other.submit(engine.enroll, portrait) for _ in range(3)]
        together = whole(engine, identity, sound)
    np.testing.assert_array_equal(together, alone)
    for enrolled in beside:
        np.testing.assert_array_equal(enrolled.result().neutral, identity.neutral)
        for name, kept in identity.face.kept.items():
            np.testing.assert_array_equal(enrolled.result().face.kept[name], kept)


def test_a_lower_quality_repeats_pictures_and_a_higher_one_draws_all_again(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, alone: np.ndarray
) -> None:
    state = engine.start(identity, seed=3)
    full = engine.step(state, sound[: 6 * HOP])  # frames 0-3
    engine.set_quality(state, Quality(paint_every=5, draw_every=2))
    half = engine.step(state, sound[6 * HOP : 12 * HOP])
    engine.set_quality(state, Quality())
    again = engine.step(state, sound[12 * HOP : 15 * HOP])
    assert [f.fresh for f in full + half + again] == [True] * 4 + [True, False] * 3 + [True] * 3
    assert [f.index for f in full + half + again] == list(range(13))
    for drawn, repeated in zip(half[::2], half[1::2], strict=True):
        np.testing.assert_array_equal(drawn.rgb, repeated.rgb)
    np.testing.assert_array_equal(full[0].rgb, alone[0])


def test_frames_of_half_the_size_show_the_same_and_change_nothing_after_them(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, alone: np.ndarray
) -> None:
    state = engine.start(identity, seed=3)
    full = engine.step(state, sound[: 6 * HOP])  # frames 0-3
    engine.set_quality(state, Quality(half=True))
    half = engine.step(state, sound[6 * HOP : 12 * HOP])
    engine.set_quality(state, Quality())
    again = engine.step(state, sound[12 * HOP : 15 * HOP])
    height, width = identity.size
    for frame in half:
        assert frame.rgb.shape == (height // 2, width // 2, 3)
        shrunk = alone[frame.index].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
        assert np.abs(frame.rgb - shrunk).mean() < 2.5
    for frame in full + again:
        np.testing.assert_array_equal(frame.rgb, alone[frame.index])


def test_streams_do_not_disturb_each_other(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, alone: np.ndarray
) -> None:
    one, two = engine.start(identity, seed=3), engine.start(identity, seed=9)
    frames = []
    for start in range(0, len(sound), HOP):
        frames += engine.step(one, sound[start : start + HOP])
        engine.step(two, -sound[start : start + HOP])
    frames += engine.flush(one)
    np.testing.assert_array_equal(np.stack([f.rgb for f in frames]), alone)


def test_a_silent_face_is_alive(engine: AvatarEngine, identity: Identity) -> None:
    frames = whole(engine, identity, np.zeros(50 * HOP, np.float32))
    assert (frames[0] != frames[-1]).any()


def test_frames_have_the_size_of_the_portrait(engine: AvatarEngine, identity: Identity) -> None:
    assert identity.size == (512, 512)
    assert whole(engine, identity, np.zeros(HOP, np.float32)).shape == (1, 512, 512, 3)


def test_a_picture_without_a_face_is_refused_with_a_reason(engine: AvatarEngine) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    with pytest.raises(PortraitRefused) as refusal:
        engine.enroll(noise)
    assert refusal.value.code == "no_face"


SMILE_AT = 7


def smiling(engine: AvatarEngine, identity: Identity, pcm: np.ndarray, cut: int) -> np.ndarray:
    state = engine.start(identity, seed=3)
    engine.set_prompt(state, engine.read_prompt("smile, brows up 0.5"), at=SMILE_AT)
    frames = [f for i in range(0, len(pcm), cut) for f in engine.step(state, pcm[i : i + cut])]
    return np.stack([f.rgb for f in frames + engine.flush(state)])


@pytest.fixture(scope="module")
def together(engine: AvatarEngine, identity: Identity, sound: np.ndarray) -> np.ndarray:
    """The frames of the sound in one step, with the prompt from `SMILE_AT` on."""
    return smiling(engine, identity, sound, len(sound))


def test_the_laws_hold_with_a_prompt_in_the_middle(
    engine: AvatarEngine,
    identity: Identity,
    sound: np.ndarray,
    alone: np.ndarray,
    together: np.ndarray,
) -> None:
    np.testing.assert_array_equal(smiling(engine, identity, sound, 900), together)
    np.testing.assert_array_equal(together[:SMILE_AT], alone[:SMILE_AT])
    assert np.abs(together[-1].astype(int) - alone[-1]).max() > 20


def test_a_prompt_for_the_next_frame_needs_no_number(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, together: np.ndarray
) -> None:
    state = engine.start(identity, seed=3)
    frames = engine.step(state, sound[: (SMILE_AT + 2) * HOP])
    assert len(frames) == SMILE_AT
    engine.set_prompt(state, engine.read_prompt("smile, brows up 0.5"))
    frames += engine.step(state, sound[(SMILE_AT + 2) * HOP :]) + engine.flush(state)
    np.testing.assert_array_equal(np.stack([f.rgb for f in frames]), together)


def test_words_beyond_the_face_are_refused(engine: AvatarEngine) -> None:
    with pytest.raises(PromptRefused, match="older"):
        engine.read_prompt("smile, older")


def painted(
    engine: AvatarEngine, identity: Identity, pcm: np.ndarray, every: int
) -> list[tuple[int, float]]:
    """After each frame: the last one that was painted, and how far its lips were apart."""
    state = engine.start(identity, seed=3)
    engine.set_quality(state, Quality(paint_every=every))
    seen: list[tuple[int, float]] = []
    for start in range(0, len(pcm), HOP):
        if engine.step(state, pcm[start : start + HOP]):
            assert state.painted is not None
            seen.append((state.painted, state.parted))
    return seen


@pytest.mark.parametrize(("every", "soonest"), [(3, 1), (5, 2)])
def test_lips_that_open_are_painted_before_their_turn(
    engine: AvatarEngine, identity: Identity, every: int, soonest: int
) -> None:
    time = np.arange(24 * HOP) / 16_000
    swell = np.clip(np.sin(2 * np.pi * 2.2 * time), 0, 1)
    voice = (0.1 * np.sign(np.sin(2 * np.pi * 120 * time)) * swell).astype(np.float32)
    lips = [parted for _, parted in painted(engine, identity, voice, 1)]
    last = [index for index, _ in painted(engine, identity, voice, every)]
    for before, index in zip(last, range(1, len(last)), strict=False):
        since, wider = index - before, lips[index] - lips[before]
        early = wider > OPENED and since >= soonest
        assert (last[index] == index) == (early or since == every)
    assert {soonest, every} <= set(np.diff(last)), "some early, some in their turn"


def test_lips_that_are_still_are_carried_and_painted_now_and_then(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    silence = np.zeros(60 * HOP, np.float32)
    last = [index for index, _ in painted(engine, identity, np.r_[silence, sound], 3)]
    quiet = np.unique(last[:58])
    assert max(np.diff(quiet)) == STILL_FRAMES
    assert len(quiet) <= 6, "of 58 frames"
    assert max(np.diff(np.unique(last[62:]))) <= 3, "while somebody speaks"
    every = [index for index, _ in painted(engine, identity, silence[: 20 * HOP], 1)]
    assert every == list(range(18)), "every mouth is painted where that is asked for"


@pytest.mark.parametrize(("fast", "asked", "every"), [(True, 0, 1), (False, 0, 3), (True, 2, 2)])
def test_a_fast_run_time_paints_every_frame_unless_told_otherwise(
    fast: bool, asked: int, every: int
) -> None:
    config = EngineConfig(threads=1, paint_every=asked)
    engine = AvatarEngine.load(config, SharedGraphs(fast=fast))
    assert engine.config.paint_every == every


def poses(engine: AvatarEngine, identity: Identity, parts: list[np.ndarray | None]) -> np.ndarray:
    """Head poses (T, 6) and lips' motion of a stream of sounds; None: what was said is cut off."""
    state, frames = engine.start(identity, seed=3), []
    for part in parts:
        if part is None:
            engine.settle(state)
        else:
            frames += engine.step(state, part)
    shown = [frame.motion for frame in frames]
    return np.stack([np.r_[m.pose, m.coefficients[arkit.MOUTH]] for m in shown if m is not None])


def test_an_interruption_settles_the_mouth_and_leaves_the_head_to_its_motion(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    quiet = np.zeros(6 * HOP, np.float32)
    whole, cut = (
        poses(engine, identity, [sound[: 10 * HOP], *stop, quiet]) for stop in ([], [None])
    )
    np.testing.assert_array_equal(cut[:, :6], whole[:, :6])
    assert (cut[10:, 6:] != whole[10:, 6:]).any()
    assert np.degrees(np.abs(np.diff(cut[8:, :3], axis=0))).max() < 3


def test_a_calm_engine_moves_the_head_less(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    calm = AvatarEngine.load(EngineConfig(calm=True))
    a, b = (poses(which, identity, [sound])[:, :3] for which in (engine, calm))
    assert 2 * np.ptp(b, axis=0).max() < np.ptp(a, axis=0).max()
