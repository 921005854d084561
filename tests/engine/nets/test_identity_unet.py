import dataclasses

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from engine.diffusion.samplers import make_scheduler  # noqa: E402
from engine.errors import ConfigError  # noqa: E402
from engine.nets.conditions import Conditions, Guidance  # noqa: E402
from engine.nets.identity_unet import IdentityUnet  # noqa: E402
from engine.nets.pose_guider import PoseGuider  # noqa: E402
from engine.nets.sd15_config import Sd15Config, UnetSizes  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()


@pytest.fixture(scope="module")
def net() -> IdentityUnet:
    torch.manual_seed(0)
    return IdentityUnet.build(SMALL).eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


Z, T, TEXT, WHO = draw(2, 4, 8, 8), torch.tensor([10, 700]), draw(2, 77, 32), draw(2, 4, 32, seed=2)
TOLD = Conditions(TEXT, WHO)


@torch.no_grad()
def test_strength_is_per_layer_and_at_run_time(net: IdentityUnet) -> None:
    def noise(scale: Tensor | None, who: Tensor | None = WHO) -> Tensor:
        return net(Z, T, Conditions(TEXT, who, scale=scale))[0]

    assert torch.equal(noise(None), noise(torch.ones(16)))
    assert torch.allclose(noise(torch.zeros(16)), noise(None, None), atol=1e-6)
    results = [noise(torch.zeros(16)), *(noise(alone) for alone in torch.eye(16))]
    for i, a in enumerate(results):
        for b in results[i + 1 :]:
            assert not torch.allclose(a, b, atol=1e-7)


@torch.no_grad()
def test_velocity_is_returned_as_the_noise_it_means(net: IdentityUnet) -> None:
    """With v = a noise - s z the noise of a z_t is a v + s z_t, and no weight is other."""
    other = IdentityUnet.build(dataclasses.replace(SMALL, prediction="velocity")).eval()
    other.load_state_dict(net.state_dict())
    velocity = net(Z, T, TOLD)[0]
    a = make_scheduler("ddim").alphas_cumprod[T].sqrt().view(-1, 1, 1, 1)
    s = (1 - a**2).sqrt()
    noise = other(Z, T, TOLD)[0]
    torch.testing.assert_close(noise, a * velocity + s * Z)
    clean = (Z - s * noise) / a
    torch.testing.assert_close(a * noise - s * clean, velocity, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other(Z, T.float() + 0.3, TOLD)[0], noise, rtol=0, atol=0.1)


@torch.no_grad()
def test_own_keys_and_values_come_in_the_order_down_middle_up(net: IdentityUnet) -> None:
    _, own = net(Z, T, TOLD)
    sizes = [(k.shape[1], k.shape[2]) for k, _ in own]
    assert sizes == [
        *[(64, 16)] * 2,
        *[(16, 32)] * 2,
        *[(4, 32)] * 2,
        (1, 32),
        *[(4, 32)] * 3,
        *[(16, 32)] * 3,
        *[(64, 16)] * 3,
    ]
    assert all(k.shape == v.shape for k, v in own)


@torch.no_grad()
def test_a_reference_and_a_previous_frame_are_both_looked_at(net: IdentityUnet) -> None:
    reference = net.write_reference(draw(1, 4, 8, 8, seed=3), TEXT[:1], WHO[:1])
    _, previous = net(Z, T, TOLD)
    alone = net(Z, T, TOLD)[0]
    with_reference = net(Z, T, Conditions(TEXT, WHO, reference))[0]
    with_both = net(Z, T, Conditions(TEXT, WHO, reference), previous=previous)[0]
    assert not torch.allclose(alone, with_reference, atol=1e-6)
    assert not torch.allclose(with_reference, with_both, atol=1e-6)


@torch.no_grad()
def test_its_own_keys_repeated_change_nothing(net: IdentityUnet) -> None:
    """Attention over [x, x] is attention over x: the cache is joined where it should be."""
    _, own = net(Z, T, TOLD)
    nothing = [(k[:, :0], v[:, :0]) for k, v in own]
    reference = (own[0], *nothing[1:])
    assert torch.allclose(
        net(Z, T, Conditions(TEXT, WHO, reference))[0], net(Z, T, TOLD)[0], atol=1e-5
    )


@torch.no_grad()
def test_several_references_stand_behind_each_other(net: IdentityUnet) -> None:
    portraits = draw(1, 3, 4, 8, 8, seed=4)
    together = net.write_reference(portraits, TEXT[:1], WHO[:1])
    for i in range(3):
        alone = net.write_reference(portraits[:, i], TEXT[:1], WHO[:1])
        for (k, v), (own_k, own_v) in zip(together, alone, strict=True):
            S = own_k.shape[1]
            assert torch.equal(k[:, i * S : (i + 1) * S], own_k)
            assert torch.equal(v[:, i * S : (i + 1) * S], own_v)


@torch.no_grad()
def test_rows_of_a_batch_do_not_meet_and_a_call_leaves_nothing_behind(net: IdentityUnet) -> None:
    both, own = net(Z, T, TOLD)
    before = {n: b.clone() for n, b in net.state_dict().items()}
    for row in range(2):
        part = slice(row, row + 1)
        alone, _ = net(Z[part], T[part], Conditions(TEXT[part], WHO[part]))
        assert torch.allclose(both[part], alone, atol=1e-5)
    net(Z, T, Conditions(TEXT), previous=own)
    again, _ = net(Z, T, TOLD)
    assert torch.equal(again, both)
    assert before.keys() == net.state_dict().keys()


@torch.no_grad()
def test_a_pose_guider_adds_one_map_after_the_first_convolution() -> None:
    config = dataclasses.replace(SMALL, guider="pose_guider")
    torch.manual_seed(0)
    net, guider = IdentityUnet.build(config).eval(), PoseGuider.build(config)
    torch.manual_seed(0)
    plain = IdentityUnet.build(SMALL)
    assert net.state_dict().keys() == plain.state_dict().keys()
    image = torch.rand(2, 3, 64, 64)
    control, cached = guider(Z, T, TEXT, Guidance(image))
    assert (len(control), cached) == (1, ())
    assert control[0].shape == (2, 16, 8, 8)
    bare = net(Z, T, TOLD)[0]
    assert torch.equal(net(Z, T, TOLD, control=control)[0], bare)  # starts as nothing
    shifted = net(Z, T, TOLD, control=(torch.ones_like(control[0]),))[0]
    net.unet.conv_in.bias += 1
    assert torch.allclose(net(Z, T, TOLD)[0], shifted, atol=1e-5)


def test_gradients_reach_the_cache_and_the_identity_layers(net: IdentityUnet) -> None:
    _, own = net(Z, T, TOLD)
    noise, _ = net(Z, T, TOLD, previous=own)
    noise.square().mean().backward()
    processor = net.unet.mid_block.attentions[0].transformer_blocks[0].attn2.processor
    assert processor.to_k_ip.weight.grad is not None
    assert processor.to_k_ip.weight.grad.any()
    net.zero_grad()


def test_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="block_out_channels has 10"):
        UnetSizes(block_out_channels=(10, 20), heads=4, norm_num_groups=2)
    with pytest.raises(ConfigError, match=r"text.hidden=768 and unet.cross_attention_dim=32"):
        Sd15Config(unet=SMALL.unet)


def test_layer_counts_of_the_full_size() -> None:
    assert UnetSizes().attention_layers == 16
