"""The engine with DiffTalk's conditioning: the laws hold, the sound itself is heard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.enroll import Identity
from engine.errors import ConfigError
from engine.face.image_file import decode_image
from engine.nets.geometry import follow
from engine.profiles.sd15 import load_engine
from engine.render.base import FrameCondition
from engine.render.sd15 import DiffusionRenderer
from server.settings import BUNDLED_PORTRAIT
from tests.contracts.small import conditions_only, decoded, stirred

HOP = 640
HOW = DiffusionSettings(random_weights="small", device="cpu", conditioning="difftalk")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made() -> tuple[AvatarEngine, DiffusionRenderer]:
    return stirred(EngineConfig.sd15(live=True, num_inference_steps=1, threads=1, diffusion=HOW))


@pytest.fixture(scope="module")
def engine(made: tuple[AvatarEngine, DiffusionRenderer]) -> AvatarEngine:
    return made[0]


@pytest.fixture(scope="module")
def identity(engine: AvatarEngine) -> Identity:
    return engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes()))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal(6 * HOP)).astype(np.float32)


def latents(
    engine: AvatarEngine,
    identity: Identity,
    sound: np.ndarray,
    cut: int = 10**6,
    *,
    flush: bool = True,
) -> Tensor:
    """Latents (F, 4, h, w) of every frame."""
    state = engine.start(identity, seed=3)
    with decoded() as kept:
        for i in range(0, len(sound), cut):
            engine.step(state, sound[i : i + cut])
        if flush:
            engine.flush(state)
    return torch.cat(kept)


def test_both_laws_hold_though_the_picture_hears_for_itself(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    whole = latents(engine, identity, sound)
    assert len(whole) == 6
    assert torch.equal(latents(engine, identity, sound, 777), whole), "cutting"
    other = np.concatenate([sound, -sound])
    assert torch.equal(latents(engine, identity, other, flush=False)[:4], whole[:4]), "later sound"


def test_the_sound_reaches_the_picture_by_itself(
    made: tuple[AvatarEngine, DiffusionRenderer], identity: Identity, sound: np.ndarray
) -> None:
    """The same landmarks, other features."""
    engine, renderer = made
    state = engine.start(identity, seed=3)
    with conditions_only() as conditions:
        engine.step(state, sound)
        engine.flush(state)
    assert len(conditions) == 6

    def drawn(sign: int) -> Tensor:
        cache = renderer.cold(identity.face)
        with decoded() as kept:
            for condition in conditions:
                heard = replace(condition, speech=sign * condition.speech)
                [(_, cache)] = renderer.draw([(identity.face, cache, heard)])
        return torch.cat(kept)

    whole = latents(engine, identity, sound)
    assert torch.equal(drawn(1), whole)
    assert (drawn(-1) - whole).abs().amax((1, 2, 3)).min() > 1e-4


def hidden(
    made: tuple[AvatarEngine, DiffusionRenderer], identity: Identity, shift: float
) -> Tensor:
    """The latents (1, 8, 8, 8) beside the noisy ones, the head so far to the right of the portrait's."""
    networks, face = made[1].networks, identity.face
    with torch.inference_mode():
        rest = networks.aim(face, shot(made[0], identity))
        moved = face.landmarks + np.array([shift, shift / 2], np.float32)
        aim = replace(rest, landmarks=moved)
        return networks.guide(face, aim, face.placed).concat


def shot(engine: AvatarEngine, identity: Identity) -> FrameCondition:
    with conditions_only() as conditions:
        engine.step(engine.start(identity, seed=3), np.zeros(4 * HOP, np.float32))
    return conditions[0]


def test_the_lower_half_is_hidden_where_the_head_is(
    made: tuple[AvatarEngine, DiffusionRenderer], identity: Identity
) -> None:
    """The masked frame is the portrait moved to where this frame's head is, grey below its nose."""
    networks, face = made[1].networks, identity.face
    side = face.rgb.shape[0]
    picture = torch.from_numpy(np.array(face.rgb)).permute(2, 0, 1)[None].float() / 127.5 - 1
    still = picture.clone()
    still[:, :, int(face.landmarks[4, 1] * side) :] = 0
    at_rest = hidden(made, identity, 0.0)
    with torch.inference_mode():
        torch.testing.assert_close(at_rest[:, :4], networks.encode(still), atol=1e-4, rtol=0)
        torch.testing.assert_close(at_rest[:, 4:], networks.encode(picture), atol=1e-4, rtol=0)
    shift = 8 / side
    away = hidden(made, identity, shift)
    rows = int((face.landmarks[4, 1] + shift / 2) * side)
    moved = follow(
        picture,
        torch.from_numpy(face.landmarks)[None],
        torch.from_numpy(face.landmarks + np.array([shift, shift / 2], np.float32))[None],
    )
    eyes = slice(int(face.landmarks[33, 1] * side) - 2, int(face.landmarks[33, 1] * side) + 2)
    inner = slice(int(face.landmarks[33, 0] * side), int(face.landmarks[263, 0] * side))
    shifted = moved[:, :, eyes.start + 4 : eyes.stop + 4, inner.start + 8 : inner.stop + 8]
    assert (shifted - picture[:, :, eyes, inner]).abs().mean() < 0.1, "eyes go with the head"
    torch.testing.assert_close(moved[:, :, :4, :4], picture[:, :, :4, :4], atol=0.05, rtol=0)
    moved[:, :, rows:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(away[:, :4], networks.encode(moved), atol=1e-4, rtol=0)
    assert torch.equal(away[:, 4:], at_rest[:, 4:])


def test_untrained_it_is_refused_with_the_way_out() -> None:
    how = replace(HOW, random_weights="")
    with pytest.raises(ConfigError, match=r"--trained RUN.*conditioning = .difftalk. in \[model\]"):
        load_engine(EngineConfig.sd15(live=True, diffusion=how))
