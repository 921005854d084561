"""PyTorch: a module called like a loaded graph, for networks that are not exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from engine.backends.base import Array, GraphSpec


class TorchGraph:
    """An `engine.backends.Graph` on the CPU.

    Args:
        module: takes the inputs of `spec` by name and returns its outputs as a tuple in their order.
    """

    def __init__(self, module: nn.Module, spec: GraphSpec) -> None:
        self.spec = spec
        self._module = module.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, **feeds: Array) -> dict[str, Array]:
        """Run once; outputs are fresh arrays that the caller owns.

        Raises:
            ValueError: an input is missing, unknown or has the wrong shape or dtype.
        """
        self.spec.check(feeds)
        made = self._module(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        return {t.name: out.numpy().copy() for t, out in zip(self.spec.outputs, made, strict=True)}

    def each(self, rows: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Run for several streams, one after another."""
        return [self(**feeds) for feeds in rows]
