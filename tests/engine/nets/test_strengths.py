"""Weights of the conditions: 0 is as if one were absent, 1 changes nothing, and none touches another."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from engine.nets.attention import UnifiedCrossAttention, joined  # noqa: E402
from engine.nets.conditions import Conditions, Guidance  # noqa: E402
from engine.nets.portraittalk import PortraitTalkModel  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]
LAYERS = Sd15Config.small().unet.attention_layers


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> PortraitTalkModel:
    """Nothing in it is zero."""
    made = PortraitTalkModel.build(Sd15Config.small())
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.add_(0.05 * rand(*parameter.shape, seed=i))
    return made.eval()


@pytest.fixture(scope="module")
def told(model: PortraitTalkModel) -> Conditions:
    text, identity = rand(1, 77, 32), rand(1, 4, 32, seed=1)
    with torch.no_grad():
        return Conditions(
            text, identity, model.write_reference(rand(1, 1, 4, 8, 8), text, identity)
        )


@torch.no_grad()
def noise(model: PortraitTalkModel, told: Conditions) -> Tensor:
    guide = Guidance(
        rand(1, 3, 64, 64, seed=3).sigmoid(), rand(1, 68, 3, seed=4), rand(1, 8, seed=5)
    )
    out: Tensor = model(rand(1, 4, 8, 8, seed=6), torch.tensor([300]), told, guide)[0]
    return out


def weighed(told: Conditions, what: str, value: float) -> Conditions:
    shape = {"scale": (LAYERS,), "weight": (1, 1), "control": (1,)}[what]
    return dataclasses.replace(told, **{what: torch.full(shape, value)})


@pytest.mark.parametrize("what", ["scale", "weight", "control"])
def test_a_weight_of_one_changes_nothing_and_others_much(
    model: PortraitTalkModel, told: Conditions, what: str
) -> None:
    plain = noise(model, told)
    torch.testing.assert_close(noise(model, weighed(told, what, 1.0)), plain, atol=1e-5, rtol=0)
    for value in (0.0, 0.5, 2.0):
        assert (noise(model, weighed(told, what, value)) - plain).abs().max() > 1e-4, value


def test_a_weight_of_zero_is_as_if_the_condition_were_absent(
    model: PortraitTalkModel, told: Conditions
) -> None:
    absent = {
        "scale": dataclasses.replace(told, identity=None),
        "weight": dataclasses.replace(told, reference=None),
    }
    for what, without in absent.items():
        found = noise(model, weighed(told, what, 0.0))
        torch.testing.assert_close(found, noise(model, without), atol=1e-5, rtol=0)
    with torch.no_grad():
        alone = model.unet(rand(1, 4, 8, 8, seed=6), torch.tensor([300]), told)[0]
    torch.testing.assert_close(
        noise(model, weighed(told, "control", 0.0)), alone, atol=1e-5, rtol=0
    )


def test_a_guidance_that_is_attended_to_is_weighed_as_one_that_is_added() -> None:
    made = PortraitTalkModel.build(
        dataclasses.replace(Sd15Config.small(), injection="cross_attention")
    ).eval()
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.add_(0.05 * rand(*parameter.shape, seed=i))
        told = Conditions(rand(1, 77, 32), rand(1, 4, 32, seed=1))
        alone = made.unet(rand(1, 4, 8, 8, seed=6), torch.tensor([300]), told)[0]
    plain, half = noise(made, told), noise(made, weighed(told, "control", 0.5))
    torch.testing.assert_close(noise(made, weighed(told, "control", 1.0)), plain)
    torch.testing.assert_close(noise(made, weighed(told, "control", 0.0)), alone)
    assert 0 < (half - alone).norm() < (plain - alone).norm()


def test_weights_may_differ_within_a_batch(model: PortraitTalkModel, told: Conditions) -> None:
    values = torch.tensor([0.0, 1.0, 0.4])
    scale = values[:, None].expand(3, LAYERS)
    many = dataclasses.replace(told, scale=scale, weight=values[:, None].flip(0), control=values)
    guide = Guidance(rand(1, 3, 64, 64).sigmoid().expand(3, -1, -1, -1), rand(1, 68, 3).expand(3, -1, -1),
                     rand(1, 8).expand(3, -1))  # fmt: skip
    z, t = rand(1, 4, 8, 8), torch.tensor([300])
    wide = dataclasses.replace(
        many, text=told.text.expand(3, -1, -1), identity=told.identity.expand(3, -1, -1)
    )
    with torch.no_grad():
        together = model(z.expand(3, -1, -1, -1), t.expand(3), wide, guide)[0]
        for row in range(3):
            alone = dataclasses.replace(
                told,
                scale=scale[row],
                weight=many.weight[row : row + 1],
                control=values[row : row + 1],
            )
            one = dataclasses.replace(
                guide,
                image=guide.image[:1],
                landmarks=guide.landmarks[:1],
                placement=guide.placement[:1],
            )
            found = model(z, t, alone, one)[0]
            torch.testing.assert_close(together[row : row + 1], found, atol=1e-5, rtol=0)


def test_two_portraits_weigh_as_they_are_told(model: PortraitTalkModel, told: Conditions) -> None:
    with torch.no_grad():
        other = model.write_reference(rand(1, 1, 4, 8, 8, seed=9), told.text, told.identity)
    both = joined([told.reference, other])

    def at(own: float, mixed: float) -> Tensor:
        weight = torch.tensor([[own, mixed]])
        return noise(model, dataclasses.replace(told, reference=both, weight=weight))

    first, second = (
        noise(model, dataclasses.replace(told, reference=r)) for r in (told.reference, other)
    )
    torch.testing.assert_close(at(1, 0), first, atol=1e-5, rtol=0)
    torch.testing.assert_close(at(0, 1), second, atol=1e-5, rtol=0)
    near, far = ((at(0.75, 0.25) - end).norm() for end in (first, second))
    assert 0 < near < far


def test_unified_attention_weighs_the_identity_too(model: PortraitTalkModel) -> None:
    from engine.nets.attention import AttentionCall, CrossAttention

    attn = model.unet.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    query, text, tokens = rand(1, 5, 32), rand(1, 77, 32, seed=1), rand(1, 4, 32, seed=2)
    with torch.no_grad():
        none, one = (
            UnifiedCrossAttention(2)(
                attn, query, text, call=AttentionCall(tokens, torch.full((LAYERS,), value))
            )
            for value in (0.0, 1.0)
        )
        plain = CrossAttention()(attn, query, text)
        whole = UnifiedCrossAttention()(attn, query, text, call=AttentionCall(tokens))
    torch.testing.assert_close(none, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(one, whole, atol=1e-5, rtol=0)
