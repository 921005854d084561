import dataclasses

import pytest

torch = pytest.importorskip("torch")

from engine.nets.projection import IdentityProjection, mix  # noqa: E402
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
