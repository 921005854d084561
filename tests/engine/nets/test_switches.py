"""The paper's ablations: each switch of the configuration changes exactly what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from engine.nets.attention import (  # noqa: E402
    CrossAttention,
    DecoupledCrossAttention,
    UnifiedCrossAttention,
)
from engine.nets.conditions import Conditions, Guidance  # noqa: E402
from engine.nets.portraittalk import Caches, PortraitTalkModel  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()
SWITCHES = {
    "attention": "unified",
    "face_encoder": False,
    "references": "first",
    "placement": False,
    "temporal": False,
}


@dataclass
class Inputs:
    """One frame's worth of everything."""

    z: Tensor
    t: Tensor
    text: Tensor
    embeddings: Tensor
    portraits: Tensor
    landmarks: Tensor
    points: Tensor
    placement: Tensor


@pytest.fixture(scope="module")
def x() -> Inputs:
    g = torch.Generator().manual_seed(1)
    r = lambda *shape: torch.randn(shape, generator=g)
    landmarks = torch.rand((1, 478, 2), generator=g) * 0.5 + 0.25
    landmarks[:, 33], landmarks[:, 263] = torch.tensor([0.4, 0.4]), torch.tensor([0.6, 0.4])
    return Inputs(
        r(1, 4, 8, 8),
        torch.tensor([300]),
        r(1, 77, 32),
        torch.nn.functional.normalize(r(1, 2, 512), dim=-1),
        r(1, 2, 4, 8, 8),
        landmarks,
        torch.rand((1, 68, 3), generator=g),
        r(1, 8) * 0.3,
    )


def build(**switches: object) -> PortraitTalkModel:
    """The same weights wherever two configurations both have them, and nothing at zero."""
    model = PortraitTalkModel.build(dataclasses.replace(SMALL, **switches))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            g = torch.Generator().manual_seed(sum(map(ord, name)) * 1009 + len(name))
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.1)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


@pytest.fixture(scope="module")
def full() -> PortraitTalkModel:
    return build()


@torch.no_grad()
def run(
    model: PortraitTalkModel, x: Inputs, *, guidance: Guidance | None = None, frames: int = 2
) -> list[Tensor]:
    """Noise of consecutive frames, the cache handed on."""
    identity = model.identify(x.embeddings)
    reference = model.write_reference(x.portraits, x.text, identity)
    conditions = Conditions(x.text, identity, reference)
    guidance = guidance or model.guidance(x.landmarks, x.points, x.placement)
    cache: Caches | None = None
    made = []
    for _ in range(frames):
        noise, cache = model(x.z, x.t, conditions, guidance, cache)
        made.append(noise)
    return made


def parts(model: PortraitTalkModel) -> set[str]:
    return {n for n, _ in model.named_parameters()}


def test_unified_attention_only_takes_the_identity_layers_away(
    full: PortraitTalkModel, x: Inputs
) -> None:
    unified = build(attention="unified")
    gone = parts(full) - parts(unified)
    assert parts(unified) < parts(full)
    assert len(gone) == 32
    assert all(n.endswith(("to_k_ip.weight", "to_v_ip.weight")) for n in gone)
    attn = full.unet.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    query, tokens = torch.randn(1, 5, 32), full.identify(x.embeddings)
    both = UnifiedCrossAttention()(attn, query, x.text, call=_call(tokens))
    plain = CrossAttention()(attn, query, torch.cat([x.text, tokens], 1))
    assert torch.equal(both, plain)
    assert not torch.equal(run(unified, x)[0], run(full, x)[0])


def _call(tokens: Tensor | None) -> object:
    from engine.nets.attention import AttentionCall

    return AttentionCall(identity=tokens)


def test_without_the_face_encoder_nobody_is_told_who_it_is(
    full: PortraitTalkModel, x: Inputs
) -> None:
    without = build(face_encoder=False)
    gone = parts(full) - parts(without)
    assert without.identify(x.embeddings) is None
    assert {n.split(".")[0] for n in gone if "_ip." not in n} == {"projection"}
    assert sum("_ip." in n for n in gone) == 32
    other = dataclasses.replace(x, embeddings=-x.embeddings)
    assert torch.equal(run(without, x)[1], run(without, other)[1])
    assert not torch.equal(run(full, x)[1], run(full, other)[1])
    silent = Conditions(x.text, None, full.unet.write_reference(x.portraits, x.text, None))
    with torch.no_grad():
        guidance = full.guidance(x.landmarks, x.points, x.placement)
        assert torch.equal(run(without, x)[0], full(x.z, x.t, silent, guidance)[0])


def test_with_one_reference_the_others_are_not_looked_at(
    full: PortraitTalkModel, x: Inputs
) -> None:
    one = build(references="first")
    assert parts(one) == parts(full)
    alone = dataclasses.replace(x, embeddings=x.embeddings[:, :1], portraits=x.portraits[:, :1])
    assert torch.equal(run(one, x)[1], run(full, alone)[1])
    assert not torch.equal(run(one, x)[1], run(full, x)[1])


def test_without_placement_a_head_may_be_anywhere(full: PortraitTalkModel, x: Inputs) -> None:
    without = build(placement=False)
    gone = parts(full) - parts(without)
    assert gone
    assert all("placement" in n for n in gone)
    moved = dataclasses.replace(
        x,
        landmarks=x.landmarks * 0.5 + 0.3,
        points=x.points * torch.tensor([0.5, 0.5, 0.5]) + torch.tensor([0.3, 0.3, 0]),
        placement=x.placement + 1,
    )
    at_home, elsewhere = (without.guidance(i.landmarks, i.points, i.placement) for i in (x, moved))
    assert at_home.placement is None
    assert (at_home.image != elsewhere.image).any(1).float().mean() < 0.01  # rounding of pixels
    assert torch.allclose(at_home.landmarks, elsewhere.landmarks, atol=1e-5)
    same, other = (full.guidance(i.landmarks, i.points, i.placement) for i in (x, moved))
    assert (same.image != other.image).any(1).float().mean() > 0.05
    drawn = Guidance(same.image, same.landmarks, None)
    assert torch.equal(run(without, x, guidance=drawn)[1], run(full, x, guidance=drawn)[1])


def test_without_temporal_attention_frames_do_not_know_each_other(
    full: PortraitTalkModel, x: Inputs
) -> None:
    without = build(temporal=False)
    gone = parts(full) - parts(without)
    assert len(gone) == 7 * 3
    assert all(n.startswith("animate.net.") and ".attn1.processor." in n for n in gone)
    first, second = run(without, x)
    assert torch.equal(first, second)
    assert torch.equal(first, run(full, x)[0])
    remembered = run(full, x)
    assert not torch.equal(remembered[0], remembered[1])


def test_injection_by_cross_attention_is_all_that_it_changes(
    full: PortraitTalkModel, x: Inputs
) -> None:
    attending = build(injection="cross_attention")
    gone, added = parts(full) - parts(attending), parts(attending) - parts(full)
    assert all(
        n.startswith(("animate.net.controlnet_down", "animate.net.controlnet_mid")) for n in gone
    )
    assert {n.rsplit(".", 2)[-2] for n in added} == {"norm", "query", "key", "value", "out"}
    assert all(".attn2.processor.animation." in n for n in added)
    assert len({n.rpartition(".attn2.")[0] for n in added}) == 16
    with (
        torch.no_grad()
    ):  # the branch itself, and what a frame leaves for the next, are as they were
        guide = full.guidance(x.landmarks, x.points, x.placement)
        features, own = attending.animate(x.z, x.t, x.text, guide)
        residuals, same = full.animate(x.z, x.t, x.text, guide)
        convs = [*full.animate.net.controlnet_down_blocks, full.animate.net.controlnet_mid_block]
        for feature, residual, conv in zip(features, residuals, convs, strict=True):
            torch.testing.assert_close(conv(feature), residual)
    for (key, value), (k, v) in zip(own, same, strict=True):
        assert torch.equal(key, k)
        assert torch.equal(value, v)
    first, second = run(attending, x)
    assert not torch.equal(first, run(full, x)[0])
    assert not torch.equal(first, second), "the frame cache is read as ever"
    with torch.no_grad():  # freshly built, nothing is added: the UNet is what it was
        for name, parameter in attending.named_parameters():
            if ".animation.out." in name:
                parameter.zero_()
        told = Conditions(x.text, None, None)
        alone = full.unet(x.z, x.t, told)[0]
        assert torch.equal(attending(x.z, x.t, told, guide)[0], alone)


def test_each_attention_sees_the_features_of_its_own_resolution(x: Inputs) -> None:
    """One feature map of the branch moved at a time: who changes stands at that place."""
    model = build(injection="cross_attention").unet
    told = Conditions(x.text, None, None)
    sides = [8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 1]
    maps = [torch.randn(1, c, s, s, generator=torch.Generator().manual_seed(s + c))
            for c, s in zip([16, 16, 16, 16, *[32] * 9], sides, strict=True)]  # fmt: skip
    with torch.no_grad():
        base = model(x.z, x.t, told, control=tuple(maps))[1]
        for at, reader in ((1, 0), (2, 1), (4, 2), (12, 6), (6, 9), (3, 12), (0, 15)):
            moved = [m + (torch.randn_like(m) if i == at else 0) for i, m in enumerate(maps)]
            own = model(x.z, x.t, told, control=tuple(moved))[1]
            changed = [i for i in range(16) if not torch.equal(own[i][0], base[i][0])]
            # keys are of a layer's self-attention, before the attention that reads the map
            assert changed == list(range(reader + 1, 16)), (at, reader)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_leaves_every_other_layer_in_place(full: PortraitTalkModel, switch: str) -> None:
    """Weights saved with a part switched off load into the whole system, and differ by that part."""
    off = build(**{switch: SWITCHES[switch]})
    missing, unexpected = full.load_state_dict(off.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == parts(full) - parts(off)


def test_processors_are_installed_by_name(full: PortraitTalkModel) -> None:
    cross = [p for p in full.unet.unet.attn_processors.values() if isinstance(p, CrossAttention)]
    assert len(full.unet.unet.attn_processors) == 32
    assert all(isinstance(p, DecoupledCrossAttention) for p in cross)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
