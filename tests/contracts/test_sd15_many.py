"""Many streams of the full-size profile in the same calls: small networks, random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.diffusion import latent_fusion
from engine.enroll import Identity
from engine.render.sd15 import DiffusionRenderer
from engine.state import StreamState
from engine.types import Quality
from tests.contracts.small import stirred

HOP, FRAMES = 640, 4
STREAMS = range(4)
GUIDED = DiffusionSettings(
    random_weights="small", sampler="ddim", guidance_scale=2.0, adapter="faceid", device="cpu"
)
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made() -> tuple[AvatarEngine, DiffusionRenderer]:
    return stirred(EngineConfig.sd15(live=True, num_inference_steps=2, threads=1, diffusion=GUIDED))


@pytest.fixture(scope="module")
def engine(made: tuple[AvatarEngine, DiffusionRenderer]) -> AvatarEngine:
    return made[0]


@pytest.fixture(scope="module")
def people(engine: AvatarEngine, portrait: np.ndarray) -> list[Identity]:
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    return [
        engine.enroll(portrait),
        engine.enroll(mirrored),
        engine.enroll(mirrored, more=[portrait]),
    ]


def sound(stream: int) -> np.ndarray:
    rng = np.random.default_rng(stream)
    return (0.3 * rng.standard_normal((FRAMES + 2) * HOP)).astype(np.float32)


def begin(engine: AvatarEngine, people: list[Identity], stream: int) -> StreamState:
    """Streams that differ in person, number of portraits, prompt, seed and steps."""
    state = engine.start(people[stream % 3], seed=stream)
    if stream == 1:
        engine.set_prompt(state, engine.read_prompt("older, pencil sketch"), at=1)
    if stream == 3:
        engine.set_quality(state, Quality(steps=3))
    return state


@contextmanager
def calls(renderer: DiffusionRenderer) -> Iterator[list[int]]:
    """Rows of every call of the networks meanwhile."""
    seen: list[int] = []
    step = renderer.networks.step

    def counted(z_t: Any, *rest: Any) -> Any:
        seen.append(len(z_t))
        return step(z_t, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer.networks, "step", counted)
        yield seen


@pytest.fixture(scope="module")
def alone(engine: AvatarEngine, people: list[Identity]) -> list[list[np.ndarray]]:
    return [
        [f.rgb.astype(int) for f in engine.step(begin(engine, people, i), sound(i))]
        for i in STREAMS
    ]


def near(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(
        np.abs(a - b).max() <= 1 for a, b in zip(one, other, strict=True)
    )


def test_four_streams_together_are_as_each_alone(
    engine: AvatarEngine, people: list[Identity], alone: list[list[np.ndarray]]
) -> None:
    rows = [(begin(engine, people, i), sound(i)) for i in STREAMS]
    for i, frames in enumerate(engine.step_many(rows)):
        assert near([f.rgb.astype(int) for f in frames], alone[i]), i
    assert not near(alone[0], alone[3]), "steps and seed of a stream are its own"
    assert not near(alone[1], alone[2])


def test_a_stream_that_joins_or_leaves_changes_nothing_for_the_others(
    engine: AvatarEngine, people: list[Identity], alone: list[list[np.ndarray]]
) -> None:
    states = {i: begin(engine, people, i) for i in STREAMS}
    frames: dict[int, list[np.ndarray]] = {i: [] for i in STREAMS}
    present = [(0, 1), (0, 1, 2, 3), (1, 2, 3), (0, 1, 3), (1, 2), (0, 1)]
    for those in present:
        heard = {i: states[i].samples for i in those}
        steps = [(states[i], sound(i)[at : at + HOP]) for i, at in heard.items()]
        for i, made in zip(those, engine.step_many(steps), strict=True):
            frames[i] += [f.rgb.astype(int) for f in made]
    assert len(frames[1]) == FRAMES
    for i in STREAMS:
        assert near(frames[i], alone[i][: len(frames[i])]), i


def test_the_networks_are_called_once_a_step_for_all_with_and_without_conditions(
    made: tuple[AvatarEngine, DiffusionRenderer], people: list[Identity]
) -> None:
    engine, renderer = made
    hops = [sound(i)[: 3 * HOP] for i in (0, 1)]
    with calls(renderer) as seen:
        engine.step_many([(engine.start(people[i], seed=i), hops[i]) for i in (0, 1)])
    assert seen == [4, 4], "two streams, each with guidance: one frame, two steps"
    state = engine.start(people[0])
    engine.set_quality(state, Quality(steps=5))
    with calls(renderer) as seen:
        engine.step_many([(engine.start(people[1]), hops[0]), (state, hops[1])])
    assert seen == [4, 4, 2, 2, 2], "who is done waits for nobody"


def test_windows_of_latent_fusion_are_predicted_together(
    portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = replace(GUIDED, long_video="fusion", window=4, overlap=1, guidance_scale=1.0)
    fusing, renderer = stirred(
        EngineConfig.sd15(live=False, num_inference_steps=1, threads=1, diffusion=how)
    )
    films = []
    for at_once, rows in ((4, [2] * 4), (1, [1] * 8)):
        monkeypatch.setattr(latent_fusion, "TOGETHER", at_once)
        film = fusing.fuse(fusing.start(fusing.enroll(portrait)), sound(0)[: 6 * HOP])
        with calls(renderer) as seen:
            while film.done < film.total:
                film.work()
        assert seen == rows, "the first frames of both windows, then their second ones"
        films.append([film.frame(i).astype(int) for i in range(6)])
    assert near(*films)
