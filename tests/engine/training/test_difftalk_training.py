"""DiffTalk's conditioning, as a stage trains it."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.audio.speech_encoder import WIDTH
from engine.errors import ConfigError, DataError
from engine.loaders.trained import load_trained
from engine.training.data.clips import load_clips
from tests.engine.training.stage_runs import SIDE, config_file, data, names, run, system

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def heard(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn clips with speech features of 6 numbers."""
    folder = tmp_path_factory.mktemp("heard") / "clips"
    shutil.copytree(drawn, folder)
    rng = np.random.default_rng(0)
    for clip in load_clips(folder):
        np.save(clip.folder / "speech.npy", rng.standard_normal((2 * len(clip), 6), np.float32))
    return folder


DIFFTALK = {"conditioning": "difftalk", "speech_features": 6}


def test_difftalk_samples_carry_what_each_frame_hears(drawn: Path, heard: Path) -> None:
    batch = data(heard, frames=2, speech=6).batch(3, (0,))
    assert batch.speech.shape == (3, 2, 16, 6)
    assert batch.speech.abs().sum((2, 3)).min() > 0
    made = system(**DIFFTALK)
    guide = made.guidance(batch, -1)
    assert guide.concat is not None
    assert guide.concat.shape == (3, 8, SIDE // 8, SIDE // 8)
    torch.testing.assert_close(guide.concat[:, 4:], made.encode(batch.references[:, 0]))
    assert guide.landmarks.shape == (3, 39, 3)
    lower = batch.frames.clone()
    lower[:, :, :, SIDE * 3 // 4 :] = 0  # well below every nose tip
    same = made.guidance(dataclasses.replace(batch, frames=lower), -1)
    assert torch.equal(guide.concat, same.concat), "the lower half cannot be seen"
    with pytest.raises(DataError, match="holds no speech, the model wants speech of 6"):
        data(drawn, speech=6)
    with pytest.raises(DataError, match="features of 6 numbers"):
        data(heard, speech=WIDTH)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["identity", pytest.param("joint", marks=pytest.mark.slow)])
def test_after_a_few_steps_the_masked_frame_matters(
    stage: str, heard: Path, tmp_path: Path
) -> None:
    train_ = {"steps": 3, "rate": 4e-3, "cold": 0.5}
    path = config_file(
        tmp_path,
        heard,
        model={"size": "small", "latents": "tiny", **DIFFTALK},
        train=train_,
    )
    run(path, stage)
    made = system(**DIFFTALK)
    batch = data(heard, frames=2, speech=6).batch(2, (7,))
    z_t, t = torch.randn(2, 4, SIDE // 8, SIDE // 8), torch.tensor([700, 300])

    @torch.no_grad()
    def asked(change: float) -> torch.Tensor:
        told, concat = made.conditions(batch), made.concat(batch, -1)
        assert concat is not None
        masked = torch.cat([concat[:, :4] + change, concat[:, 4:]], 1)
        return made.unguided(z_t, t, told, masked)

    assert torch.equal(asked(0.0), asked(1.0)), "not before training"
    assert load_trained(made.model, [tmp_path / "run" / stage])
    assert (asked(0.0) - asked(1.0)).abs().max() > 1e-3


def test_difftalk_adds_new_weights_to_what_is_trained() -> None:
    new = names("joint", "new", **DIFFTALK) - names("joint", "new")
    assert {n for n in new if "speech_tokens" not in n} == {"unet.unet.conv_in.more.weight"}
    with pytest.raises(ConfigError, match="reads no speech"):
        system(conditioning="difftalk", guider="pose_guider")
