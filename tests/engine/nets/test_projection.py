import dataclasses

import pytest

torch = pytest.importorskip("torch")

from engine.nets.projection import IdentityProjection, PlusProjection, mix  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()


@pytest.mark.parametrize(("kind", "count"), [("faceid", 4), ("portrait", 16)])
@torch.no_grad()
def test_references_give_tokens_one_behind_the_other(kind: str, count: int) -> None:
    net = IdentityProjection.build(dataclasses.replace(SMALL, projection=kind))  # type: ignore[arg-type]
    embeddings = torch.randn(2, 3, 512)
    tokens = net(embeddings)
    assert tokens.shape == (2, 3 * count, 32)
    for i in range(3):
        alone = net(embeddings[:, i : i + 1])
        assert torch.allclose(tokens[:, i * count : (i + 1) * count], alone, atol=1e-5)


def test_names_are_those_of_the_public_files() -> None:
    full = IdentityProjection.build(Sd15Config.full())
    assert {n: list(t.shape) for n, t in full.state_dict().items()} == {
        "proj.0.weight": [1024, 512],
        "proj.0.bias": [1024],
        "proj.2.weight": [3072, 1024],
        "proj.2.bias": [3072],
        "norm.weight": [768],
        "norm.bias": [768],
    }


def plus() -> PlusProjection:
    """With weights none of which is where it began."""
    torch.manual_seed(0)
    net = IdentityProjection.build(dataclasses.replace(SMALL, projection="plus"))
    assert isinstance(net, PlusProjection)
    with torch.no_grad():
        for weights in (*net.parameters(), net.nothing):
            weights.copy_(torch.randn(weights.shape) * 0.2)
    return net


def written_down(net: PlusProjection, face: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Plus v2's tokens (4, 32) of a face (512,) and patches (5, 24), equation by equation."""
    w = dict(net.state_dict())
    reader = {n.removeprefix("perceiver_resampler."): t for n, t in w.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        even = (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, unbiased=False) + 1e-5
        ).sqrt()
        return even * reader[f"{name}.weight"] + reader[f"{name}.bias"]

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    hidden = gelu(w["proj.0.weight"] @ face + w["proj.0.bias"])
    first = norm((w["proj.2.weight"] @ hidden + w["proj.2.bias"]).view(4, 32), "norm")
    seen = patches @ reader["proj_in.weight"].T + reader["proj_in.bias"]
    tokens = first
    for layer in range(4):
        name = f"layers.{layer}"
        asked = norm(tokens, f"{name}.0.norm2")
        told = torch.cat([norm(seen, f"{name}.0.norm1"), asked])
        q = asked @ reader[f"{name}.0.to_q.weight"].T
        k, v = (told @ half.T for half in reader[f"{name}.0.to_kv.weight"].split(64))
        share = (q @ k.T / 64**0.5).softmax(-1)
        tokens = tokens + share @ v @ reader[f"{name}.0.to_out.weight"].T
        wide = norm(tokens, f"{name}.1.0") @ reader[f"{name}.1.1.weight"].T
        tokens = tokens + gelu(wide) @ reader[f"{name}.1.3.weight"].T
    out = tokens @ reader["proj_out.weight"].T + reader["proj_out.bias"]
    return first + net.structure * norm(out, "norm_out")


@torch.no_grad()
def test_plus_adds_what_its_tokens_read_in_the_patches() -> None:
    net = plus()
    face, patches = torch.randn(2, 3, 512), torch.randn(2, 3, 5, 24)
    given = torch.cat([face, patches.flatten(2)], -1)
    for net.structure in (1.0, 0.4):
        made = net(given)
        assert made.shape == (2, 12, 32)
        for b, r in ((0, 0), (1, 2)):
            wanted = written_down(net, face[b, r], patches[b, r])
            torch.testing.assert_close(made[b, 4 * r : 4 * r + 4], wanted, rtol=1e-4, atol=1e-4)
    assert (net(given) - made).abs().max() == 0
    net.structure = 0.0
    torch.testing.assert_close(net(given), IdentityProjection.forward(net, face))


@torch.no_grad()
def test_no_identity_is_no_face_and_the_patches_of_no_picture() -> None:
    net = plus()
    given = torch.randn(2, 2, 512 + 5 * 24)
    given[1, 0] = 0
    made = net(given)
    wanted = written_down(net, torch.zeros(512), net.nothing)
    torch.testing.assert_close(made[1, :4], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made[1, 4:], net(given[1:, 1:])[0])


def test_between_people_lies_the_weighted_mean() -> None:
    a, b = torch.zeros(1, 4, 32), torch.ones(1, 4, 32)
    assert torch.equal(mix([a, b], [1, 0]), a)
    assert torch.allclose(mix([a, b], [0.6, 0.4]), torch.full((1, 4, 32), 0.4))
    assert torch.allclose(mix([a, b], [3, 1]), torch.full((1, 4, 32), 0.25))


@pytest.mark.parametrize("weights", [[1], [0, 0], [-1, 2]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    people = [torch.zeros(1, 4, 32)] * 2
    with pytest.raises(ValueError, match="must be >= 0"):
        mix(people, weights)


def test_people_with_unequal_portraits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"have \[4, 8\] tokens"):
        mix([torch.zeros(1, 4, 32), torch.zeros(1, 8, 32)], [1, 1])
