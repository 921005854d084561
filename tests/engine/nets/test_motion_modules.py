"""AnimateDiff's motion modules and longer histories: against diffusers, and what each frame sees."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel  # noqa: E402
from torch import Tensor  # noqa: E402

from engine.errors import ConfigError  # noqa: E402
from engine.nets.conditions import Conditions, Guidance  # noqa: E402
from engine.nets.identity_unet import IdentityUnet, unet_arguments  # noqa: E402
from engine.nets.motion_modules import module_step  # noqa: E402
from engine.nets.portraittalk import Caches, PortraitTalkModel  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]
SMALL = Sd15Config.small()
T = torch.tensor([300])


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stirred(net: Any) -> Any:
    """Away from the zeros that new parts start from."""
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.add_(0.05 * rand(*parameter.shape, seed=i))
    return net.eval()


@pytest.mark.parametrize("version", ["v2", "v3"])
@torch.no_grad()
def test_one_frame_is_what_diffusers_computes(version: str) -> None:
    net = stirred(IdentityUnet.build(dataclasses.replace(SMALL, motion_modules=version)))
    z, text = rand(1, 4, 8, 8), rand(1, 77, 32)
    plain = UNet2DConditionModel(**unet_arguments(SMALL.unet))
    own = net.unet.state_dict()
    plain.load_state_dict({n: x for n, x in own.items() if ".processor." not in n})
    theirs = UNetMotionModel.from_unet2d(plain, net.motion).eval()
    wanted = theirs(z[:, :, None], T, text).sample[:, :, 0]
    found, keys = net(z, T, Conditions(text))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert len(keys) == 16 + (21 if version == "v2" else 20)


@torch.no_grad()
def test_the_last_frame_of_a_window_is_what_diffusers_computes() -> None:
    """The transformer alone, told what it saw of the frames before."""
    adapter = stirred(MotionAdapter(block_out_channels=(16,), motion_layers_per_block=1, use_motion_mid_block=False,
                                    motion_num_attention_heads=2, motion_norm_num_groups=4))  # fmt: skip
    module: Any = adapter.down_blocks[0].motion_modules[0]
    calm = torch.nn.Identity()  # its norm spans the window; AnimateDiff's own code norms each frame
    module.norm, frames = calm, rand(3, 16, 4, 4)
    window = module(frames, num_frames=3)
    block = module.transformer_blocks[0]
    tokens = module.proj_in(frames.flatten(2).transpose(1, 2))  # (3, S, C)
    first = block.norm1(tokens)
    line = block.pos_embed(first.transpose(0, 1))
    second = block.norm2(tokens + block.attn1(line).transpose(0, 1))
    earlier = tuple(x[:2].flatten(0, 1)[None] for x in (first, second))
    last, seen = module_step(module, frames[2:], earlier)
    torch.testing.assert_close(last, window[2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[1], second[2:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_untrained_modules_change_nothing() -> None:
    net = IdentityUnet.build(dataclasses.replace(SMALL, motion_modules="v3")).eval()
    z, told = rand(1, 4, 8, 8), Conditions(rand(1, 77, 32))
    for control in (None, tuple(x * 0.1 for x in residuals(net))):
        moved, kept = net(z, T, told, control=control)
        plain, alone = net(z, T, told, control=control, moving=False)
        torch.testing.assert_close(moved, plain, atol=1e-6, rtol=0)
        assert len(kept) == 36
        assert len(alone) == 16
    assert len(net.write_reference(z, told.text, None)) == 16


def residuals(net: IdentityUnet) -> list[Tensor]:
    """Thirteen residuals of the shapes that a ControlNet gives."""
    sides = (8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 1)
    widths = (16, 16, 16, 16, 32, 32, 32, 32, 32, 32, 32, 32, 32)
    return [rand(1, c, s, s, seed=i) for i, (c, s) in enumerate(zip(widths, sides, strict=True))]


def roll(model: PortraitTalkModel, start: int, count: int = 6) -> list[Tensor]:
    """Noise of frames 0 to `count`, frame `start` alone being another than it was."""
    told = Conditions(rand(1, 77, 32), rand(1, 4, 32, seed=1))
    guide = Guidance(rand(1, 3, 64, 64).sigmoid(), rand(1, 68, 3), rand(1, 8))
    cache: Caches | None = None
    made = []
    with torch.no_grad():
        for frame in range(count):
            z = rand(1, 4, 8, 8, seed=frame) + (frame == start)
            noise, own = model(z, T, told, guide, cache)
            cache = model.remember(cache, own)
            made.append(noise)
    return made


@pytest.mark.parametrize(
    ("how", "reach"),
    [
        ({}, 1),
        ({"history": 3}, 3),
        ({"motion_modules": "v3", "motion_window": 2}, 2),
        ({"motion_modules": "v2", "motion_window": 2, "history": 3}, 3),
        ({"temporal": False}, 0),
    ],
)
def test_the_cache_holds_the_frames_asked_for(how: dict[str, Any], reach: int) -> None:
    """How far back one evaluation can look: a cache of that many frames, and no more."""
    config = dataclasses.replace(SMALL, **how)
    assert config.remembered == reach
    model = stirred(PortraitTalkModel.build(config))
    told = Conditions(rand(1, 77, 32), rand(1, 4, 32, seed=1))
    guide = Guidance(rand(1, 3, 64, 64).sigmoid(), rand(1, 68, 3), rand(1, 8))
    with torch.no_grad():
        owns = [model(rand(1, 4, 8, 8, seed=i), T, told, guide)[1] for i in range(6)]

        def asked(changed: int) -> Tensor:
            """With what frame `changed` of six left being another, each computed by itself."""
            cache: Caches | None = None
            for frame, own in enumerate(owns):
                left = tuple(tuple((k + 1, v - 1) for k, v in net) for net in own)
                cache = model.remember(cache, left if frame == changed else own)
            out: Tensor = model(rand(1, 4, 8, 8, seed=9), T, told, guide, cache)[0]
            return out

        same = asked(-1)
        seen = [not torch.equal(asked(frame), same) for frame in range(6)]
    assert seen == [frame >= 6 - reach for frame in range(6)]


def test_earlier_frames_matter_and_later_ones_never_do() -> None:
    model = stirred(PortraitTalkModel.build(dataclasses.replace(SMALL, motion_modules="v3")))
    whole, other = roll(model, -1), roll(model, 3)
    for frame in range(6):
        assert torch.equal(whole[frame], other[frame]) == (frame < 3), frame


def test_what_contradicts_itself_is_refused() -> None:
    for how, said in (
        ({"history": 0}, "1 to 8 frames"),
        ({"motion_window": 32}, "1 to 31 frames"),
        ({"motion_modules": "v2", "temporal": False}, "not with temporal off"),
        ({"history": 2, "temporal": False}, "not with temporal off"),
    ):
        with pytest.raises(ConfigError, match=said):
            dataclasses.replace(SMALL, **how)
