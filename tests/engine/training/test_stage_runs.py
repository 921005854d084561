"""Every stage learns its clips, and a resumed run equals one that was not stopped."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.errors import ConfigError, DataError
from engine.loaders.run_card import WEIGHTS, read_card
from engine.training.checkpoints import CHECKPOINT
from engine.training.data.clips import load_clips
from engine.training.data.drawn_clips import write_drawn_clips
from engine.training.portraittalk.begin import as_prepared, build_system
from engine.training.portraittalk.stage_config import STAGES, ModelSettings, load_run_config
from tests.engine.training.stage_runs import (
    SIDE,
    config_file,
    first_held_out,
    pretend_trained,
    run,
    weights_of,
)

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

# -- going on


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["identity", "animate", "joint", "distill"])
def test_any_stage_resumed_equals_one_that_was_not_stopped(
    stage: str, drawn: Path, tmp_path: Path
) -> None:
    matching = {"distill": {"distribution_matching": 0.5, "fake_updates": 1}}
    check_resumed(stage, drawn, tmp_path, **matching)


@pytest.mark.parametrize(
    "stage", ["codec", pytest.param("distill", marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_a_resumed_run_equals_an_unbroken_one(stage: str, drawn: Path, tmp_path: Path) -> None:
    """A stage and the distillation, whose trainers differ."""
    matching = {"distribution_matching": 0.5, "fake_updates": 1, "student_steps": 1}
    values = check_resumed(stage, drawn, tmp_path, distill=matching)
    if stage == "distill":
        assert {"l1", "perceptual", "mouth", "matching", "judge", "fake"} <= values.keys()
    assert all(math.isfinite(value) for value in values.values())


def check_resumed(
    stage: str, drawn: Path, tmp_path: Path, **tables: dict[str, Any]
) -> dict[str, float]:
    """The last values of the run that was not stopped."""
    whole = config_file(tmp_path, drawn, "whole", **tables)
    broken = config_file(tmp_path, drawn, "broken", **tables)
    for path in (whole, broken):
        if stage == "distill":
            pretend_trained(path, "joint")
    last = run(whole, stage)
    one = config_file(tmp_path, drawn, "broken", **tables, train={"steps": 1})
    run(one, stage)
    assert torch.load(tmp_path / "broken" / stage / CHECKPOINT, weights_only=True)["step"] == 1
    again = run(config_file(tmp_path, drawn, "broken", **tables), stage)
    for name in ("loss", "gradient", "held_out"):
        assert again[name] == pytest.approx(last[name], rel=1e-6), name
    wanted, found = (weights_of(path, stage) for path in (whole, broken))
    assert wanted.keys() == found.keys()
    assert max(float((wanted[n] - found[n]).abs().max()) for n in wanted) <= 1e-6
    return last


def test_other_settings_need_another_run(drawn: Path, tmp_path: Path) -> None:
    run(config_file(tmp_path, drawn, train={"steps": 1}), "codec")
    with pytest.raises(ConfigError, match="other settings \\(rate\\)"):
        run(config_file(tmp_path, drawn, train={"steps": 2, "rate": 1e-4}), "codec")


def test_a_run_of_an_earlier_version_gets_its_card_by_being_started_again(
    drawn: Path, tmp_path: Path
) -> None:
    path = config_file(tmp_path, drawn, train={"steps": 1})
    run(path, "codec")
    weights = tmp_path / "run" / "codec" / WEIGHTS
    card, before = read_card(weights), load_file(weights)
    assert card is not None
    assert (card.stage, card.step, card.networks.unet.sample_size) == ("codec", 1, SIDE // 8)
    save_file(before, weights)  # as it was written before there were cards
    assert read_card(weights) is None
    run(path, "codec")
    assert read_card(weights) == card
    after = load_file(weights)
    assert all(torch.equal(after[n], before[n]) for n in before)


def test_a_run_takes_the_face_encoder_of_its_clips(drawn: Path, tmp_path: Path) -> None:
    clips = load_clips(drawn)
    settings, encoder = as_prepared(ModelSettings(size="small"), clips)
    assert (settings.face_embedding, encoder) == (512, "drawn")
    assert as_prepared(ModelSettings(size="small", face_encoder=False), clips)[1] == ""
    shutil.copytree(drawn, tmp_path / "two")
    card = next((tmp_path / "two").glob("clips/*/clip.json"))
    card.write_text(card.read_text().replace('"drawn"', '"sface"'))
    with pytest.raises(DataError, match=r"several face encoders \(drawn, sface\)"):
        as_prepared(settings, load_clips(tmp_path / "two"))


def test_half_a_checkpoint_is_none(drawn: Path, tmp_path: Path) -> None:
    path = config_file(tmp_path, drawn, train={"steps": 1})
    run(path, "codec")
    (tmp_path / "run" / "codec" / CHECKPOINT).write_bytes(b"PK half")
    with pytest.raises(DataError, match="cannot be read"):
        run(path, "codec")


# -- learning


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "steps", "factor"),
    [("codec", 40, 2.5), ("identity", 50, 5.0), ("animate", 40, 2.0), ("joint", 20, 5.0)],
)
@pytest.mark.timeout(900)
def test_a_stage_learns_eight_clips_by_heart(
    stage: str, steps: int, factor: float, drawn: Path, tmp_path: Path
) -> None:
    """Each stage alone, from random weights. The bars are what seconds reach; MODEL_CARD.md holds
    the falls of minutes, and the commands.
    """
    path = config_file(
        tmp_path,
        drawn,
        model={"width": 64},
        train={"steps": steps, "batch": 8, "rate": 3e-3, "warm_up": 10, "decay": "cosine"}
        | {"masked": 0.3, "sample_every": steps, "samples": 4}
        | {"text_dropout": 0.0, "identity_dropout": 0.0, "both_dropout": 0.0},
    )
    last = run(path, stage)["held_out"]
    folder = tmp_path / "run" / stage
    assert last < first_held_out(path, stage) / factor
    with Image.open(folder / f"sheet_{steps:06d}.png") as sheet:
        assert sheet.height == 4 * SIDE
    assert list(folder.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("stage", "steps", "factor"),
    [("codec", 8, 1.3), ("identity", 6, 1.2), ("animate", 8, 1.05), ("joint", 3, 1.05)],
)
def test_a_few_steps_lower_the_loss_of_a_stage(
    stage: str, steps: int, factor: float, drawn: Path, tmp_path: Path
) -> None:
    """From random weights; how far each stage falls is for the slow tests."""
    plain = {"text_dropout": 0.0, "identity_dropout": 0.0, "both_dropout": 0.0}
    few = {"steps": steps, "batch": 2, "rate": 5e-3, "masked": 0.3, "samples": 2}
    path = config_file(tmp_path, drawn, train=few | plain)
    last = run(path, stage)["held_out"]
    assert math.isfinite(last)
    assert last < first_held_out(path, stage) / factor


def test_each_stage_starts_from_the_one_before(drawn: Path, tmp_path: Path) -> None:
    path = config_file(tmp_path, drawn, train={"steps": 1, "rate": 0.05})
    config, clips = load_run_config(path), load_clips(drawn)
    codec = build_system(config, "identity", clips).model.codec.tiny.state_dict()
    run(path, "codec")
    learnt = build_system(config, "identity", clips).model.codec.tiny.state_dict()
    assert any(not torch.equal(codec[n], learnt[n]) for n in codec)
    with pytest.raises(DataError, match="nothing to distil"):
        run(path, "distill")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_stage_lowers_what_those_before_it_left(tmp_path: Path) -> None:
    """The paper's order, a minute of it; MODEL_CARD.md holds the falls of the full lengths."""
    write_drawn_clips(tmp_path / "moving", people=8, frames=12, size=SIDE)
    path = config_file(
        tmp_path,
        tmp_path / "moving",
        data={"reference_gap": 4},
        model={"width": 64, "prediction": "velocity"},
        train={"batch": 8, "rate": 3e-3, "warm_up": 10, "decay": "cosine", "error": "latents"}
        | {"shift": 3.0, "masked": 0.3, "samples": 8, "sample_every": 1000}
        | {"text_dropout": 0.0, "identity_dropout": 0.0, "both_dropout": 0.0},
        codec={"steps": 40},
        identity={"steps": 60},
        animate={"steps": 90},
        joint={"steps": 30, "rate": 1.5e-3},
    )
    falls = {}
    for stage in STAGES:
        last = run(path, stage)["held_out"]
        falls[stage] = first_held_out(path, stage) / last
    assert falls["codec"] > 2.5
    assert falls["identity"] > 2
    assert falls["animate"] > 1.25
    assert falls["joint"] > 1.05, falls


def test_animate_net_begins_as_the_encoder_of_identity_net(drawn: Path, tmp_path: Path) -> None:
    path = config_file(tmp_path, drawn, train={"steps": 1, "rate": 0.05})
    pretend_trained(path, "identity", change=0.1)
    config, clips = load_run_config(path), load_clips(drawn)
    started = build_system(config, "animate", clips).model
    learnt, copied = started.unet.unet.conv_in.weight, started.animate.net.conv_in.weight
    assert torch.equal(learnt, copied)
    run(path, "animate")
    later = build_system(config, "joint", clips).model
    assert torch.equal(later.unet.unet.conv_in.weight, learnt), "it does not learn here"
    assert not torch.equal(later.animate.net.conv_in.weight, learnt), "nor is it copied again"
