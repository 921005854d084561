"""The engine with DiffTalk's conditioning: the laws hold, the sound itself is heard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.errors import ConfigError
from engine.face.image_file import decode_image
from engine.profiles.sd15 import load_engine
from engine.render.sd15 import DiffusionRenderer
from server.run import BUNDLED_PORTRAIT
from tests.contracts.small import stirred

HOP = 640
HOW = DiffusionSettings(random_weights="small", device="cpu", conditioning="difftalk")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return stirred(
        load_engine(EngineConfig.sd15(live=True, num_inference_steps=1, threads=1, diffusion=HOW))
    )


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal(6 * HOP)).astype(np.float32)


def latents(
    engine: AvatarEngine, sound: np.ndarray, cut: int = 10**6, *, flush: bool = True
) -> Tensor:
    """Latents of every frame."""
    kept: list[Tensor] = []
    picture: Any = engine._renderer
    decode = DiffusionRenderer._decode
    picture._decode = lambda z: kept.append(z) or decode(picture, z)
    state = engine.start(engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes())), seed=3)
    for i in range(0, len(sound), cut):
        engine.step(state, sound[i : i + cut])
    if flush:
        engine.flush(state)
    return torch.cat(kept)


def test_both_laws_hold_though_the_picture_hears_for_itself(
    engine: AvatarEngine, sound: np.ndarray
) -> None:
    whole = latents(engine, sound)
    assert len(whole) == 6
    assert torch.equal(latents(engine, sound, 777), whole), "cutting"
    other = np.concatenate([sound, -sound])
    assert torch.equal(latents(engine, other, flush=False)[:4], whole[:4]), "later sound"


def test_the_sound_reaches_the_picture_by_itself(engine: AvatarEngine, sound: np.ndarray) -> None:
    """The same landmarks, other features."""
    picture: Any = engine._renderer
    aim = DiffusionRenderer._aim
    whole = latents(engine, sound)
    picture._aim = lambda face, condition: aim(
        picture, face, replace(condition, speech=-condition.speech)
    )
    try:
        assert (latents(engine, sound) - whole).abs().amax((1, 2, 3)).min() > 1e-4
    finally:
        del picture._aim


def test_the_portraits_own_lower_half_is_hidden(engine: AvatarEngine) -> None:
    portrait = decode_image(BUNDLED_PORTRAIT.read_bytes())
    face = engine.enroll(portrait).face
    picture: Any = engine._renderer
    side = face.rgb.shape[0]
    masked = torch.from_numpy(np.array(face.rgb)).permute(2, 0, 1)[None].float() / 127.5 - 1
    masked[:, :, int(face.landmarks[4, 1] * side) :] = 0
    with torch.inference_mode():
        torch.testing.assert_close(face.concat[:, :4], picture._encode(masked))
    assert not torch.equal(face.concat[:, :4], face.concat[:, 4:])


def test_untrained_it_is_refused_with_the_way_out() -> None:
    how = replace(HOW, random_weights="")
    with pytest.raises(ConfigError, match=r"--trained RUN.*conditioning = .difftalk. in \[model\]"):
        load_engine(EngineConfig.sd15(live=True, diffusion=how))
