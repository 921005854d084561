"""Twice the output's size at the same latents: learnt end to end by the codec stage, and served."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.errors import DataError
from engine.face.image_file import decode_image
from engine.profiles.sd15 import load_engine
from engine.training.data.drawn_clips import write_drawn_clips
from engine.training.portraittalk.run_stage import build_system, talk_data
from engine.training.portraittalk.stage_config import load_run_config
from server.settings import BUNDLED_PORTRAIT
from tests.engine.training.stage_runs import (
    SIDE,
    config_file,
    data,
    first_held_out,
    load_clips,
    names,
    run,
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
    system = build_system(config, "identity", clips)
    assert system.model.codec.enlarge.second.weight.abs().max() > 0
    batch = talk_data(config, clips, config.stage("identity"), 1, masked=False)[0].batch(2, (0,))
    assert batch.frames.shape == (2, 1, 3, 2 * SIDE, 2 * SIDE)
    z = system.encode(batch.frames[:, 0])
    assert z.shape == (2, 4, SIDE // 8, SIDE // 8) == system.latent_shape(2)
    assert system.decode(z).shape == (2, 3, 2 * SIDE, 2 * SIDE)


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


def test_a_run_is_served_twice_as_large_for_nearly_the_same(learnt: Path) -> None:
    how = DiffusionSettings(random_weights="small", device="cpu")
    codec = (learnt.parent / "run" / "codec",)
    twice = replace(how, output_scale=2)
    portrait = decode_image(BUNDLED_PORTRAIT.read_bytes())
    engines = [served(h) for h in (how, twice, replace(twice, trained=codec))]
    states = [engine.start(engine.enroll(portrait), seed=1) for engine in engines]
    hop = np.zeros(HOP, np.float32)
    shown, spent = [], [[], [], []]  # type: ignore[var-annotated]
    for _ in range(12):  # in turns, so that a busy machine is as busy for each
        for own, engine, state in zip(spent, engines, states, strict=True):
            began = time.thread_time()
            frames = engine.step(state, hop)
            own.append(time.thread_time() - began)
        shown = frames or shown
    assert shown[0].rgb.shape == (2 * SIDE, 2 * SIDE, 3)
    assert median(spent[2]) < 1.3 * median(spent[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_learnt_detail_is_nearer_the_film_than_enlargement(tmp_path: Path) -> None:
    """End to end, against a codec that learnt as long at the small size and is enlarged."""
    write_drawn_clips(tmp_path / "large", people=4, frames=6, size=2 * SIDE)
    steps = {"steps": 150, "batch": 4, "rate": 4e-3, "warm_up": 10, "decay": "cosine"}
    errors = {}
    for name, scale in (("twice", 2), ("once", 1)):
        model = {**TWICE, "output_scale": scale}
        path = config_file(tmp_path, tmp_path / "large", name, model=model, train=steps)
        run(path, "codec")
        config, clips = load_run_config(path), load_clips(tmp_path / "large")
        system = build_system(config, "identity", clips)
        film = data(tmp_path / "large", frames=1, scale=2).fixed(8).frames[:, 0]
        with torch.no_grad():
            made = system.decode(system.encode(film))
        errors[name] = float(F.l1_loss(F.interpolate(made, film.shape[-2:], mode="bilinear"), film))
    assert errors["twice"] < errors["once"]
