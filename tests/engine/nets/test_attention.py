import pytest

torch = pytest.importorskip("torch")

from engine.nets.attention import (  # noqa: E402
    AttentionCall,
    attend,
    layer_order,
    with_cached,
)
from engine.nets.guided_attention import ZeroAttention  # noqa: E402

pytestmark = pytest.mark.train


def test_attention_is_softmax_of_scaled_products() -> None:
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    parts = []
    for head in range(2):
        at = slice(4 * head, 4 * head + 4)
        weight = (q[..., at] @ k[..., at].transpose(1, 2) / 2).softmax(-1)
        parts.append(weight @ v[..., at])
    assert torch.allclose(attend(q, k, v, 2), torch.cat(parts, -1), atol=1e-6)


def test_caches_join_behind_the_own_and_one_row_serves_all() -> None:
    own = (torch.randn(3, 4, 8), torch.randn(3, 4, 8))
    one = (torch.randn(1, 2, 8), torch.randn(1, 2, 8))
    key, value = with_cached(own, None, one)
    assert key.shape == value.shape == (3, 6, 8)
    assert torch.equal(key[:, :4], own[0])
    assert all(torch.equal(value[row, 4:], one[1][0]) for row in range(3))
    assert with_cached(own, None, None) is own


def test_an_added_attention_starts_as_nothing_and_can_learn() -> None:
    layer = ZeroAttention(8, 6, 2)
    x, tokens = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    assert not layer(x, tokens).any()
    (layer(x, tokens) + x).square().sum().backward()
    assert layer.out.weight.grad is not None
    assert layer.out.weight.grad.any()


def test_layers_are_ordered_as_data_flows() -> None:
    names = [
        "down_blocks.0.x.attn1.processor",
        "down_blocks.0.x.attn2.processor",
        "up_blocks.1.x.attn1.processor",
        "mid_block.x.attn1.processor",
    ]
    assert layer_order(names) == ["down_blocks.0.x", "mid_block.x", "up_blocks.1.x"]


def test_what_a_call_recorded_comes_out_in_layer_order() -> None:
    call = AttentionCall()
    pairs = [(torch.full((1, 1, 1), float(i)), torch.zeros(1, 1, 1)) for i in range(3)]
    for i in (2, 0, 1):
        call.own[i] = pairs[i]
    assert [k.item() for k, _ in call.keys_values()] == [0, 1, 2]
