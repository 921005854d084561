"""A configuration is true or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.checks import check_seed
from engine.config import DiffusionSettings, EngineConfig, StreamConfig
from engine.errors import ConfigError


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fps": 50}, "fps=50: the networks are trained on 25 alone"),
        ({"sample_rate_hz": 48_000}, "sample_rate_hz=48000: .* 16000 alone"),
        ({"lookahead_frames": 0}, "lookahead_frames=0: the motion network hears 2 frames ahead"),
    ],
)
def test_a_time_base_that_no_network_has_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        StreamConfig(**changed)


def test_a_longer_look_ahead_goes_with_an_encoder_that_hears_in_chunks() -> None:
    far = StreamConfig(lookahead_frames=8)
    with pytest.raises(ConfigError, match="lookahead_frames=8"):
        EngineConfig(stream=far)
    with pytest.raises(ConfigError, match="lookahead_frames=8"):
        EngineConfig.sd15(live=False, stream=far)
    assert EngineConfig.sd15(live=False, stream=far, speech="hubert-base").stream == far


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"speech_hop_ms": 100}, "speech_hop_ms=100 is no whole .* 40, 80, 120, 160"),
        ({"backend": "tpu"}, "backend='tpu' is unknown; one of 'openvino'"),
        ({"profile": "huge"}, "profile='huge' is unknown"),
        ({"threads": -1}, "threads=-1"),
        ({"threads": 10**9}, "threads=1000000000"),
        ({"num_inference_steps": 51}, "num_inference_steps=51"),
        ({"paint_every": -1}, "paint_every=-1"),
        ({"max_side": 64}, "max_side=64"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        EngineConfig(**changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"guidance_scale": -1.0}, "guidance_scale=-1"),
        ({"window": 2}, "window=2, overlap=4"),
        ({"window": 257}, "window=257, overlap=4"),
        ({"sampler": "dopri5"}, "sampler='dopri5' is unknown; one of 'ddim', 'euler'"),
        ({"sampler": "flow"}, "sampler='flow' is unknown"),
        ({"face_encoder": "x", "random_weights": "small"}, "face_encoder='x' is unknown"),
        ({"models_dir": Path("none")}, "models_dir='none' does not exist"),
        ({"overlap": -1}, "overlap=-1"),
        ({"overlap": 15}, "overlap=15"),
        ({"models_dir": Path(__file__)}, "is a file; name a folder"),
        ({"random_weights": "huge"}, "one of 'small', 'full', ''"),
    ],
)
def test_sampling_that_cannot_be_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DiffusionSettings(**changed)


def test_a_seed_has_63_bits() -> None:
    check_seed(0)
    check_seed((1 << 63) - 1)
    for seed in (-1, 1 << 63):
        with pytest.raises(ConfigError, match=f"seed={seed} is out of range"):
            check_seed(seed)
