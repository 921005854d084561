"""The laws of the engine in the sd15 profile: the same classes, small networks, random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.audio.speech_encoder import WIDTH
from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig, Strengths
from engine.enroll import Identity
from engine.errors import ConfigError
from engine.offline.video import Casting, generate
from engine.profiles.sd15 import load_engine, load_renderer, random_parts
from engine.render.sd15_sampling import Sampling
from engine.types import Quality
from tests.contracts.small import conditions_only, renderer_of, shown_in, write_wav

HOP = 640
SMALL = DiffusionSettings(random_weights="small", sampler="lcm", device="cpu")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return load_engine(
        EngineConfig.sd15(live=True, num_inference_steps=2, threads=1, diffusion=SMALL)
    )


@pytest.fixture(scope="module")
def identity(engine: AvatarEngine, portrait: np.ndarray) -> Identity:
    return engine.enroll(portrait)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal(5 * HOP)).astype(np.float32)


def film(
    engine: AvatarEngine, identity: Identity, pcm: np.ndarray, cut: int = 10**6, prompt: str = ""
) -> np.ndarray:
    state = engine.start(identity, seed=3)
    if prompt:
        engine.set_prompt(state, engine.read_prompt(prompt), at=2)
    frames = [f for i in range(0, len(pcm), cut) for f in engine.step(state, pcm[i : i + cut])]
    frames += engine.flush(state)
    assert [f.index for f in frames] == list(range(len(frames)))
    return np.stack([f.rgb for f in frames])


@pytest.fixture(scope="module")
def whole(engine: AvatarEngine, identity: Identity, sound: np.ndarray) -> np.ndarray:
    return film(engine, identity, sound)


def test_splitting_the_sound_never_changes_the_frames(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, whole: np.ndarray
) -> None:
    assert whole.shape == (5, 64, 64, 3)
    np.testing.assert_array_equal(film(engine, identity, sound, 777), whole)


def test_later_sound_never_changes_earlier_frames(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, whole: np.ndarray
) -> None:
    longer = np.concatenate([sound, sound[: 2 * HOP]])
    decided = len(whole) - engine.config.stream.lookahead_frames
    state = engine.start(identity, seed=3)
    frames = [f.rgb for f in engine.step(state, longer[: len(sound)])]
    np.testing.assert_array_equal(np.stack(frames), whole[:decided])


def test_words_change_the_picture_from_their_frame_on(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, whole: np.ndarray
) -> None:
    older = film(engine, identity, sound, 900, "older, pencil sketch")
    np.testing.assert_array_equal(older[:2], whole[:2])
    assert (older[2:] != whole[2:]).any((1, 2, 3)).all()
    np.testing.assert_array_equal(
        film(engine, identity, sound, 10**6, "older, pencil sketch"), older
    )


def test_a_frame_sees_the_one_before(
    engine: AvatarEngine, portrait: np.ndarray, sound: np.ndarray, whole: np.ndarray
) -> None:
    alone = load_engine(replace(engine.config, diffusion=replace(SMALL, long_video="neither")))
    frames = film(alone, alone.enroll(portrait), sound[: 2 * HOP])
    apart = np.abs(np.stack(frames[:2]).astype(int) - whole[:2])
    assert apart[0].max() <= 1  # sums of another order
    assert apart[1].max() > 1


def test_the_same_shot_is_the_same_picture(engine: AvatarEngine, identity: Identity) -> None:
    """Nothing flickers of itself: the noise of a stream is the same in all its frames."""
    renderer = load_renderer(engine.config)
    assert renderer.sampling.sampler == "lcm"
    state = engine.start(identity, seed=(1 << 63) - 1)
    with conditions_only() as conditions:
        engine.step(state, np.zeros(4 * HOP, np.float32))
    cold, shot = renderer.cold(identity.face), conditions[0]
    [(first, _)] = renderer.draw([(identity.face, cold, shot)])
    [(later, _)] = renderer.draw([(identity.face, cold, replace(shot, index=9))])
    np.testing.assert_array_equal(first, later)
    other = replace(shot, noise=replace(shot.noise, seed=4))
    assert (renderer.draw([(identity.face, cold, other)])[0][0] != first).any()


def test_strengths_change_from_their_frame_on(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, whole: np.ndarray
) -> None:
    def weighed(strengths: Strengths, prompt: str = "", cut: int = 777) -> np.ndarray:
        state = engine.start(identity, seed=3)
        if prompt:
            engine.set_prompt(state, engine.read_prompt(prompt), at=2)
        engine.set_prompt(state, strengths, at=2)
        frames = [f for i in range(0, len(sound), cut) for f in engine.step(state, sound[i:][:cut])]
        return np.stack([f.rgb for f in [*frames, *engine.flush(state)]])

    np.testing.assert_array_equal(weighed(Strengths()), whole)
    for what in ("identity", "reference"):
        frames = weighed(Strengths(**{what: 0.0}))
        np.testing.assert_array_equal(frames[:2], whole[:2])
        assert (frames[2:] != whole[2:]).any((1, 2, 3)).all(), what
    np.testing.assert_array_equal(weighed(Strengths(reference=0.0), cut=10**6), frames)
    older = film(engine, identity, sound, prompt="older, pencil sketch")
    np.testing.assert_array_equal(weighed(Strengths(), "older, pencil sketch"), older)
    np.testing.assert_array_equal(weighed(Strengths(text=0.0), "older, pencil sketch"), whole)
    half = weighed(Strengths(text=0.5), "older, pencil sketch")
    assert all((half[2:] != end[2:]).any((1, 2, 3)).all() for end in (older, whole))


def test_strengths_of_the_settings_are_those_of_every_stream(
    engine: AvatarEngine, portrait: np.ndarray, sound: np.ndarray
) -> None:
    plain = engine.start(engine.enroll(portrait), seed=3)
    engine.set_prompt(plain, Strengths(reference=0.3, identity=2.0))
    how = replace(SMALL, reference_scale=0.3, identity_scale=2.0)
    set_ = load_engine(replace(engine.config, diffusion=how))
    asked = set_.step(set_.start(set_.enroll(portrait), seed=3), sound)
    for a, b in zip(engine.step(plain, sound), asked, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
    with pytest.raises(ConfigError, match=r"text_scale=5.0 is out of range; 0 to 4"):
        replace(SMALL, text_scale=5.0)


def test_people_can_be_mixed_and_shown_by_several_portraits(
    engine: AvatarEngine, portrait: np.ndarray
) -> None:
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    alone = engine.enroll(portrait).face
    both = engine.enroll(portrait, more=[mirrored]).face
    assert both.identity.shape[1] == 2 * alone.identity.shape[1]
    assert both.reference[0][0].shape[1] == 2 * alone.reference[0][0].shape[1]
    other = engine.enroll(mirrored).face
    between = engine.enroll(portrait, mixed=[(mirrored, 0.25)]).face
    torch.testing.assert_close(between.identity, 0.75 * alone.identity + 0.25 * other.identity)
    assert not torch.equal(alone.identity, other.identity)
    tokens = alone.reference[0][0].shape[1]
    for (key, _), (own, _), (theirs, _) in zip(
        between.reference, alone.reference, other.reference, strict=True
    ):
        torch.testing.assert_close(key[:, : own.shape[1]], own)
        torch.testing.assert_close(key[:, own.shape[1] :], theirs)
    assert between.weight.tolist() == [[0.75, 0.25]]
    three = engine.enroll(portrait, more=[mirrored], mixed=[(mirrored, 0.25)]).face
    assert three.reference[0][0].shape[1] == 3 * tokens
    torch.testing.assert_close(three.weight, torch.tensor([[0.75, 0.75, 0.5]]))


def test_what_a_frame_leaves_survives_being_written_down(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray, whole: np.ndarray
) -> None:
    state = engine.start(identity, seed=3)
    drawn = engine.step(state, sound[: 4 * HOP])
    assert len(drawn) == 2
    kept = engine.pack(state)
    again = engine.start(identity, seed=3)
    engine.resume(again, 2, kept)
    frames = engine.step(again, sound) + engine.flush(again)
    assert [f.index for f in frames] == [2, 3, 4]
    np.testing.assert_array_equal(np.stack([f.rgb for f in frames]), whole[2:])


def test_a_stopped_run_with_guidance_goes_on_as_if_it_had_not(
    portrait: np.ndarray, tmp_path: Path
) -> None:
    tone = write_wav(tmp_path / "tone.wav", np.zeros(4 * HOP))
    how = replace(SMALL, sampler="ddim", guidance_scale=3.5, codec="full")
    offline = load_engine(
        EngineConfig.sd15(live=False, num_inference_steps=1, threads=1, diffusion=how)
    )
    casting = Casting(portraits=[portrait], prompt="smile, oil painting", seed=1)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    generate(offline, casting, tone, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        generate(offline, casting, tone, tmp_path / "cut", save_every_s=0, progress=stop)
    assert generate(offline, casting, tone, tmp_path / "cut").resumed_at == 2
    a, b = (shown_in(tmp_path / n) for n in ("whole", "cut"))
    assert len(a) == 4
    assert a == b


def test_a_frame_between_two_is_the_one_before_and_says_so(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    state = engine.start(identity, seed=3)
    engine.set_quality(state, Quality(paint_every=2))
    frames = [*engine.step(state, sound), *engine.flush(state)][:4]
    assert [frame.fresh for frame in frames] == [True, False, True, False]
    for painted, repeated in ((frames[0], frames[1]), (frames[2], frames[3])):
        np.testing.assert_array_equal(painted.rgb, repeated.rgb)
    assert (frames[1].rgb != frames[2].rgb).any()


def test_half_precision_draws_nearly_the_same(
    engine: AvatarEngine,
    identity: Identity,
    portrait: np.ndarray,
    sound: np.ndarray,
    whole: np.ndarray,
) -> None:
    config = engine.config
    parts = random_parts(SMALL, WIDTH, torch.bfloat16)
    renderer = renderer_of(parts, load_renderer(config).sampling)
    half = AvatarEngine.load(config, renderer=renderer)
    frames = film(half, half.enroll(portrait), sound[: 2 * HOP]).astype(int)
    assert np.abs(frames - whole[:2]).mean() < 4


def test_a_sampler_of_velocities_is_refused_where_noise_is_predicted() -> None:
    with pytest.raises(ConfigError, match="takes a network's velocity, and this one gives noise"):
        Sampling(sampler="flow")
