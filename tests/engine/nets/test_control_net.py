import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from engine.nets.conditions import Guidance  # noqa: E402
from engine.nets.control_net import AnimateControlNet  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


Z, T, TEXT = draw(2, 4, 8, 8), torch.tensor([10, 700]), draw(2, 77, 32)
IMAGE, POINTS, PLACED = torch.rand(2, 3, 64, 64), draw(2, 68, 3), draw(2, 8)
GUIDE = Guidance(IMAGE, POINTS, PLACED)


@pytest.fixture
def net() -> AnimateControlNet:
    """With its public part as after loading: the last layers not at zero."""
    torch.manual_seed(0)
    net = AnimateControlNet.build(SMALL).eval()
    with torch.no_grad():
        for name, parameter in net.net.named_parameters():
            if ".processor." not in name and not parameter.any():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return net


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@torch.no_grad()
def test_a_freshly_loaded_public_one_is_unchanged(net: AnimateControlNet) -> None:
    from diffusers import ControlNetModel

    from engine.nets.control_net import control_net_arguments

    public = ControlNetModel(**control_net_arguments(SMALL.unet)).eval()
    public.load_state_dict(
        {n: t for n, t in net.net.state_dict().items() if ".processor." not in n}
    )
    down, middle = public(Z, T, TEXT, controlnet_cond=IMAGE, return_dict=False)
    first, own = net(Z, T, TEXT, GUIDE)
    second, _ = net(Z, T, TEXT, GUIDE, own)
    assert len(first) == 13
    for ours in (first, second):
        assert all(
            torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, (*down, middle), strict=True)
        )


@torch.no_grad()
@pytest.mark.parametrize("name", ["landmarks", "placement", "temporal"])
def test_each_attention_of_its_own_sees_only_its_own_input(
    net: AnimateControlNet, name: str
) -> None:
    _, own = net(Z, T, TEXT, GUIDE)
    inside = "attn1.processor.out" if name == "temporal" else f"attn2.processor.{name}.out"
    touched = 0
    for key, parameter in net.net.named_parameters():
        if inside in key and key.endswith("weight"):
            parameter.copy_(torch.randn_like(parameter))
            touched += 1
    assert touched == 7
    base = net(Z, T, TEXT, GUIDE, own)[0]
    moved = {
        "landmarks": net(Z, T, TEXT, Guidance(IMAGE, POINTS + 1, PLACED), own)[0],
        "placement": net(Z, T, TEXT, Guidance(IMAGE, POINTS, PLACED + 1), own)[0],
        "temporal": net(Z, T, TEXT, GUIDE, tuple((k + 1, v + 1) for k, v in own))[0],
    }
    assert {n for n, r in moved.items() if not same(r, base)} == {name}


@torch.no_grad()
def test_landmarks_are_told_apart_by_their_place(net: AnimateControlNet) -> None:
    tokens = net.landmark_tokens(torch.zeros(1, 68, 3))
    assert tokens.shape == (1, 68, 32)
    assert len({tuple(t.tolist()) for t in tokens[0]}) == 68
    assert net.placement_tokens is not None
    assert net.placement_tokens(torch.zeros(3, 8)).shape == (3, 8, 32)


def test_the_new_layers_learn_from_zero(net: AnimateControlNet) -> None:
    _, own = net(Z, T, TEXT, GUIDE)
    residuals, _ = net(Z, T, TEXT, GUIDE, own)
    sum(r.square().mean() for r in residuals).backward()
    for inside in ("landmarks.out", "placement.out", "attn1.processor.out"):
        gradients = [p.grad for n, p in net.net.named_parameters() if f"{inside}.weight" in n]
        assert len(gradients) == 7
        assert all(g is not None and g.any() for g in gradients)
