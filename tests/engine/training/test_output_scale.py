"""Twice the output's size at the same latents: learnt end to end by the codec stage, and served."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.errors import DataError
from engine.face.image_file import decode_image
from engine.loaders.trained import load_trained
from engine.profiles.sd15 import load_engine
from engine.training.data.drawn_clips import write_drawn_clips
from engine.training.portraittalk.run_stage import build_system, make_accelerator, talk_data
from engine.training.portraittalk.stage_config import StageSettings, load_run_config
from engine.training.portraittalk.stage_trainer import StageTrainer
from server.settings import BUNDLED_PORTRAIT
from tests.engine.training.stage_runs import (
    SIDE,
    config_file,
    data,
    first_held_out,
    load_clips,
    names,
    run,
    system,
)

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]
TWICE = {"size": "small", "latents": "tiny", "output_scale": 2}
HOP = 640


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    write_drawn_clips(folder, people=2, frames=4, size=2 * SIDE)
    return folder


@pytest.fixture(scope="module")
def learnt(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec stage of a few steps; the file of its configuration."""
    few = {"steps": 10, "batch": 2, "rate": 5e-3, "samples": 2}
    path = config_file(tmp_path_factory.mktemp("twice"), large, model=TWICE, train=few)
    assert run(path, "codec")["held_out"] < first_held_out(path, "codec") / 1.2
    return path


def test_the_codec_stage_learns_the_enlarger_too(learnt: Path, large: Path) -> None:
    trained = names("codec", output_scale=2) - names("codec")
    assert {n.partition(".first.")[0].partition(".second.")[0] for n in trained} == {
        "codec.enlarge"
    }
    assert names("codec", "new", output_scale=2) == trained, "TAESD stays as it was published"
    config, clips = load_run_config(learnt), load_clips(large)
    made = build_system(config, "identity", clips)
    assert made.model.codec.enlarge.second.weight.abs().max() > 0
    batch = talk_data(config, clips, config.stage("identity"), 1, masked=False)[0].batch(2, (0,))
    assert batch.frames.shape == (2, 1, 3, 2 * SIDE, 2 * SIDE)
    z = made.encode(batch.frames[:, 0])
    assert z.shape == (2, 4, SIDE // 8, SIDE // 8) == made.latent_shape(2)
    assert made.decode(z).shape == (2, 3, 2 * SIDE, 2 * SIDE)


@pytest.mark.parametrize("stage", ["identity", pytest.param("distill", marks=pytest.mark.slow)])
def test_stages_after_it_take_frames_of_the_output_size(
    stage: str, learnt: Path, large: Path
) -> None:
    few = {"steps": 1, "batch": 1}
    path = config_file(learnt.parent, large, model=TWICE, train=few)
    if stage == "distill":
        run(path, "joint")
    assert np.isfinite(run(path, stage)["loss"])


def test_clips_too_small_for_it_are_refused(drawn: Path) -> None:
    with pytest.raises(
        DataError, match="prepared at 64 pixels a side; size = 64 with output_scale = 2"
    ):
        data(drawn, scale=2)


def served(how: DiffusionSettings) -> AvatarEngine:
    return load_engine(
        EngineConfig.sd15(live=True, num_inference_steps=2, threads=1, diffusion=how)
    )


def test_frames_twice_as_large_are_served_for_nearly_the_same() -> None:
    how = DiffusionSettings(random_weights="small", device="cpu")
    portrait = decode_image(BUNDLED_PORTRAIT.read_bytes())
    engines = [served(h) for h in (how, replace(how, output_scale=2))]
    states = [engine.start(engine.enroll(portrait), seed=1) for engine in engines]
    hop = np.zeros(HOP, np.float32)
    shown, spent = [], [[], []]  # type: ignore[var-annotated]
    for _ in range(12):  # in turns, so that a busy machine is as busy for each
        for own, engine, state in zip(spent, engines, states, strict=True):
            began = time.thread_time()
            frames = engine.step(state, hop)
            own.append(time.thread_time() - began)
        shown = frames or shown
    assert shown[0].rgb.shape == (2 * SIDE, 2 * SIDE, 3)
    assert median(spent[1]) < 1.3 * median(spent[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_learnt_detail_is_nearer_the_film_than_enlargement(large: Path, tmp_path: Path) -> None:
    """The enlarger alone, over a codec that is there: it starts as plain enlargement and improves on it."""
    once = config_file(tmp_path, large, train={"steps": 40, "batch": 4, "rate": 4e-3})
    run(once, "codec")
    made, film = system(output_scale=2), data(large, frames=1, scale=2)
    load_trained(made.model, [tmp_path / "run" / "codec"])
    how = StageSettings(steps=40, batch=4, rate=2e-3, warm_up=5, ema=0.9, weights="new", samples=4)
    trainer = StageTrainer(made, "codec", how, film, film, make_accelerator(how, cpu=True))
    assert all(name.startswith("codec.enlarge.") for name in trainer.trained)
    plain = trainer.held_out()["held_out"]
    for _ in range(how.steps):
        trainer.train_step()
    assert trainer.held_out()["held_out"] < 0.97 * plain
