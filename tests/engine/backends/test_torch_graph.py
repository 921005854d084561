from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from engine.backends import GraphSpec, TensorSpec
from engine.backends.torch_graph import TorchGraph

pytestmark = pytest.mark.train
SPEC = GraphSpec(
    "scale",
    (TensorSpec("x", ("B", 3)), TensorSpec("by", (1,))),
    (TensorSpec("same", ("B", 3)), TensorSpec("scaled", ("B", 3))),
)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.9)

    def forward(self, by: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.drop(x * by)


def test_a_module_is_called_like_a_loaded_graph() -> None:
    graph = TorchGraph(Scale(), SPEC)
    x, by = np.ones((2, 3), np.float32), np.array([2.0], np.float32)
    first = graph(x=x, by=by)
    assert list(first) == ["same", "scaled"]
    x[:] = 5
    second = graph(x=x, by=by)
    np.testing.assert_array_equal(first["same"], np.ones((2, 3)))
    np.testing.assert_array_equal(first["scaled"], np.full((2, 3), 2))
    np.testing.assert_array_equal(second["scaled"], np.full((2, 3), 10))


def test_what_does_not_fit_the_spec_is_refused() -> None:
    graph = TorchGraph(Scale(), SPEC)
    by = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="wants inputs"):
        graph(x=np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="x: wants float32"):
        graph(x=np.ones((2, 4), np.float32), by=by)
    with pytest.raises(ValueError, match="x: wants float32"):
        graph(x=np.ones((2, 3)), by=by)
