"""The TOML file of a training run."""

import json
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.training.portraittalk.stage_config import load_run_config, run_config
from tests.engine.training.stage_runs import config_file, run

pytestmark = pytest.mark.train


def test_unknown_and_wrong_settings_are_refused(tmp_path: Path) -> None:
    good = {"run": "r", "data": {"clips": "c"}}
    run_config(json.loads(json.dumps(good)), tmp_path)
    for change, words in (
        ({"data": {}}, "needs clips"),
        ({"train": {"stepps": 3}}, "did you mean 'steps'"),
        ({"train": {"steps": "many"}}, "steps='many': wanted int"),
        ({"train": {"cold": 1.5}}, "from 0 to 1"),
        ({"model": {"size": "medium"}}, "one of 'full', 'small'"),
        ({"model": {"width": 64}}, 'size = "small" with it'),
        ({"model": {"size": "small", "width": 6}}, "not a multiple of"),
        ({"model": {"prediction": "velocity"}}, 'size = "small"'),
        ({"train": {"error": "latents", "snr_gamma": 5.0}}, "snr_gamma weighs errors of noise"),
        ({"train": {"shift": 0.0}}, "shift=0.0: wanted more than 0"),
        ({"distill": {"frames": 1}}, "two frames"),
        ({"data": {"clips": "c", "size": 100}}, "multiple of 8"),
        ({"train": {"batch": 6, "accumulate": 4}}, "multiple of accumulate"),
        ({"colour": {}}, "unexpected 'colour'"),
        ({"run": 3}, "no `run`"),
    ):
        with pytest.raises(ConfigError, match=words):
            run_config(json.loads(json.dumps(good | change)), tmp_path)
    with pytest.raises(ConfigError, match="no configuration"):
        load_run_config(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["drawn", "sd15"])
def test_the_examples_are_read(name: str) -> None:
    folder = Path(__file__).parents[3] / "engine" / "training" / "configs"
    config = load_run_config(folder / f"{name}.toml")
    assert config.model.size == ("small" if name == "drawn" else "full")
    if name == "sd15":
        assert config.stage("identity").rate == 5e-6, "the paper's"
        assert config.stage("joint").batch == 32


def test_a_full_run_says_which_checkpoint_is_missing(tmp_path: Path, drawn: Path) -> None:
    path = config_file(tmp_path, drawn, model={"size": "full", "latents": "vae"})
    with pytest.raises(Exception, match=r"sd15 .* is not here; bring it with"):
        run(path, "identity")
