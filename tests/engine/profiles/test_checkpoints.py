"""A run's key follows the contents of the weights, not the place where they lie."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import DiffusionSettings, EngineConfig
from engine.loaders.registry import find
from engine.offline.casting import Casting
from engine.offline.run_key import run_key
from engine.profiles.checkpoints import needed_checkpoints, weights_digest

FEW_STEPS = DiffusionSettings()
GUIDED = DiffusionSettings(sampler="ddim", guidance_scale=3.5, codec="full")
BARE = replace(GUIDED, adapter="none")


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def write_models(folder: Path) -> Path:
    """Files under the names of every checkpoint; nothing is loaded from them."""
    for how in (FEW_STEPS, GUIDED, BARE):
        for name in [*needed_checkpoints(how), "sd-vae-ft-mse", "hubert-base"]:
            for pattern in find(name).files:
                path = folder / name / pattern.replace("*", "vocab.json")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{name} {pattern}")
    motion = folder / "motion-hubert-base-160ms" / "motion.pt"
    motion.parent.mkdir(parents=True, exist_ok=True)
    motion.write_text("motion")
    return folder


def test_sets_of_checkpoints_go_by_the_settings() -> None:
    assert needed_checkpoints(FEW_STEPS) == [
        "sd15",
        "control-mediapipe-face",
        "taesd",
        "faceid",
        "insightface",
        "lcm-lora",
    ]
    assert needed_checkpoints(BARE) == ["sd15", "control-mediapipe-face"]


def test_the_bundled_weights_count_by_content(tmp_path: Path) -> None:
    plain = EngineConfig()
    moved = EngineConfig(weights=tmp_path / "w")
    shutil.copytree(plain.weights, moved.weights)
    assert weights_digest(plain) == weights_digest(moved)
    changed = bytearray((moved.weights / "motion.onnx").read_bytes())
    changed[-1] ^= 1
    (moved.weights / "motion.onnx").write_bytes(changed)
    assert weights_digest(plain) != weights_digest(moved)


@pytest.mark.parametrize(
    ("how", "changed"),
    [
        (FEW_STEPS, "sd15/unet/diffusion_pytorch_model.fp16.safetensors"),
        (FEW_STEPS, "sd15/unet/diffusion_pytorch_model.safetensors"),  # it would be preferred
        (FEW_STEPS, "sd15/tokenizer/vocab.json"),
        (FEW_STEPS, "taesd/diffusion_pytorch_model.safetensors"),
        (FEW_STEPS, "control-mediapipe-face/diffusion_sd15/config.json"),
        (FEW_STEPS, "faceid/ip-adapter-faceid_sd15.bin"),
        (FEW_STEPS, "insightface/w600k_r50.onnx"),
        (FEW_STEPS, "lcm-lora/pytorch_lora_weights.safetensors"),
        (GUIDED, "sd-vae-ft-mse/diffusion_pytorch_model.safetensors"),
        (BARE, "hubert-base/pytorch_model.bin"),
        (BARE, "hubert-base/model.safetensors"),
        (BARE, "motion-hubert-base-160ms/motion.pt"),
    ],
)
def test_a_checkpoint_that_changes_in_place_changes_the_digest(
    how: DiffusionSettings, changed: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    digests = []
    for name in ("a", "b"):
        models = write_models(tmp_path / name)
        placed = replace(how, models_dir=models)
        config = EngineConfig.sd15(
            live=False, speech="hubert-base" if how == BARE else "tiny", diffusion=placed
        )
        digests.append(weights_digest(config))
    assert digests[0] == digests[1]
    (models / changed).write_text("trained on")
    assert weights_digest(config) != digests[1]


def test_what_these_settings_do_not_load_does_not_count(tmp_path: Path) -> None:
    models = write_models(tmp_path / "a")
    config = EngineConfig.sd15(live=False, diffusion=replace(FEW_STEPS, models_dir=models))
    before = weights_digest(config)
    (models / "hubert-base" / "pytorch_model.bin").write_text("trained on")
    assert weights_digest(config) == before


def test_the_key_of_a_run_follows_its_options_and_not_its_paths(tmp_path: Path) -> None:
    sound, again = tmp_path / "a.wav", tmp_path / "b.wav"
    sound.write_bytes(b"sound")
    again.write_bytes(b"sound")
    config, casting = EngineConfig(), Casting(portraits=[], prompt="smile", seed=3)
    moved = EngineConfig(weights=tmp_path / "w")
    shutil.copytree(config.weights, moved.weights)
    key = run_key(config, casting, sound)
    assert run_key(moved, casting, again) == key
    again.write_bytes(b"other")
    others = (
        run_key(replace(config, max_side=256), casting, sound),
        run_key(config, replace(casting, seed=4), sound),
        run_key(config, replace(casting, prompt=""), sound),
        run_key(config, casting, again),
    )
    assert len({key, *others}) == 5
