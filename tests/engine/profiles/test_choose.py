"""From options to an engine: what is missing or meaningless is one clear sentence."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import DiffusionSettings, EngineConfig
from engine.errors import BackendUnavailable, ConfigError, WeightsError
from engine.options import EngineOptions
from engine.profiles import load_profile
from engine.profiles.choose import how_slow, make_config


def test_offline_and_live_have_their_own_defaults() -> None:
    live = make_config("sd15", {"num_inference_steps": None}, {"guidance_scale": None}, live=True)
    assert (live.num_inference_steps, live.diffusion.sampler, live.diffusion.codec) == (
        4,
        "lcm",
        "tiny",
    )
    offline = make_config("sd15", {"num_inference_steps": 12}, {"guidance_scale": 2.0}, live=False)
    assert (offline.num_inference_steps, offline.diffusion.sampler, offline.diffusion.codec) == (
        *(12, "ddim"),
        "full",
    )
    assert offline.diffusion.guidance_scale == 2.0
    assert offline.paint_every == 1
    assert make_config("tiny", {"threads": 1}, {}, live=True) == EngineConfig(threads=1)


@pytest.mark.parametrize("profile", ["tiny", "sd15"])
def test_calm_is_an_option_of_every_engine(profile: str) -> None:
    assert make_config(profile, EngineOptions(calm=True).common(), {}, live=True).calm
    assert not make_config(profile, EngineOptions().common(), {}, live=True).calm


@pytest.mark.parametrize(
    ("profile", "common", "diffusion", "said"),
    [
        ("tiny", {"num_inference_steps": 30}, {}, "num_inference_steps: only --profile sd15"),
        ("tiny", {}, {"guidance_scale": 2.0, "sampler": "ddim"}, "guidance_scale, sampler"),
        ("huge", {}, {}, "'tiny', 'sd15'"),
        ("sd15", {}, {"guidance_scale": 99.0}, "guidance_scale=99"),
        ("sd15", {}, {"adapter": "faced"}, "'faceid-portrait', 'faceid-plus-v2', 'none'"),
        ("sd15", {"num_inference_steps": 0}, {}, "num_inference_steps=0"),
        ("sd15", {}, {"conditioning": "difftlk"}, "'portraittalk', 'difftalk'"),
        ("sd15", {"speech": "wav2vec"}, {}, "'tiny', 'hubert-base', 'hubert-large'"),
        ("tiny", {"speech": "hubert-base"}, {"sampler": "ddim"}, "^sampler: only --profile sd15"),
        ("tiny", {}, {"use": "commercial"}, "^use: only --profile sd15"),
        ("sd15", {}, {"sampler": "dopri5"}, "'ddim', 'euler', 'dpm"),
        ("sd15", {}, {"long_video": "both"}, "'cache', 'fusion', 'neither'"),
        ("sd15", {}, {"long_video": "fusion"}, "live there is only 'cache' or 'neither'"),
        ("tiny", {}, {"long_video": "fusion"}, "long_video: only --profile sd15"),
    ],
)
def test_a_wrong_setting_is_refused(
    profile: str, common: dict[str, object], diffusion: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config(profile, common, diffusion, live=True)


@pytest.mark.parametrize("profile", ["tiny", "sd15"])
def test_every_profile_hears_with_hubert_out_of_the_folder_of_checkpoints(
    profile: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    common = EngineOptions(speech="hubert-large", speech_hop_ms=80).common()
    config = make_config(profile, common, {"models_dir": tmp_path}, live=True)
    assert (config.speech, config.speech_hop_ms) == ("hubert-large", 80)
    with pytest.raises(WeightsError, match=f"hubert-large .* {tmp_path}"):
        load_profile(replace(config, diffusion=replace(config.diffusion, random_weights="small")))


def test_missing_checkpoints_are_named_with_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    how = DiffusionSettings(models_dir=tmp_path)
    with pytest.raises(
        WeightsError, match="6 checkpoints of sd15 are not here: sd15, .*`portraittalk models"
    ):
        load_profile(EngineConfig.sd15(live=True, diffusion=how))


def test_a_licence_that_forbids_the_use_is_refused_first(tmp_path: Path) -> None:
    how = DiffusionSettings(models_dir=tmp_path, use="commercial")
    with pytest.raises(WeightsError, match="licence of faceid"):
        load_profile(EngineConfig.sd15(live=True, diffusion=how))


def test_missing_packages_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine.profiles.sd15", None)
    with pytest.raises(BackendUnavailable, match=r"portraittalk\[diffusion\]"):
        load_profile(EngineConfig.sd15(live=True))


def test_how_slow_is_said_in_seconds_and_times() -> None:
    assert "41.0 s on this computer, 1,025 times too slow" in how_slow(41.0, 40)
    assert "20 ms of the 40 ms" in how_slow(0.02, 40)
