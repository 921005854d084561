"""The denoising step of the full-size system run by a graph: an engine on a GPU in the place of torch.

A call that the graph was not made for goes to torch as before: the first frame of a stream, which has none
before it, or another number of portraits or rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.backends import Graph
from engine.backends.cuda_graph import Tree
from engine.nets.portraittalk import Caches
from engine.render.sd15_graphs import STEP, STEP_OUT, leaves, regrown

Step = Callable[..., tuple[Tensor, Caches]]  # as `PortraitTalkModel.forward`


class GraphStep:
    """Called as the model is, with the graph in its place wherever that fits.

    Args:
        graph: of `engine.render.sd15_graphs.step_graph`.
        batches: rows that the graph takes.
        otherwise: what takes the calls that the graph cannot.

    Attributes:
        taken: calls that the graph took.
    """

    def __init__(self, graph: Graph, batches: tuple[int, ...], otherwise: Step) -> None:
        self._graph, self._batches, self._otherwise = graph, batches, otherwise
        self._out: Tree = None  # what comes back, as a tree to be filled
        self.taken = 0

    def __call__(
        self, z_t: Tensor, t: Tensor, told: Tree, guide: Tree, before: Caches | None = None
    ) -> tuple[Tensor, Caches]:
        """Noise (B, 4, h, w) and the frame cache after it; arguments as the model's."""
        rows = z_t.shape[0]
        feeds = self._feeds(leaves(STEP, (z_t, t, told, guide, before)), rows)
        if feeds is None or rows not in self._batches or before is None:
            return self._otherwise(z_t, t, told, guide, before)
        self.taken += 1
        made = self._graph(**feeds)
        values = [_as_tensor(made[s.name], z_t) for s in self._graph.spec.outputs]
        names = [name for name, _ in zip(leaves(STEP_OUT, (z_t, before)), values, strict=True)]
        assert names == [s.name for s in self._graph.spec.outputs]
        out: tuple[Tensor, Caches] = regrown((z_t, before), values)
        return out

    def _feeds(self, given: dict[str, Tensor], rows: int) -> dict[str, Any] | None:
        """What the graph reads of a call, as it reads it; None where the call is not one of its kind."""
        feeds = {}
        if given.keys() != {tensor.name for tensor in self._graph.spec.inputs}:
            return None  # strengths, for one, that it was not made with
        for tensor in self._graph.spec.inputs:
            value = given[tensor.name]
            if value.shape[0] == 1 < rows:  # of one stream, for all rows
                value = value.expand(rows, *value.shape[1:])
            if tuple(value.shape) != tensor.sized(rows):
                return None
            value = value.to(getattr(torch, tensor.dtype)).contiguous()
            feeds[tensor.name] = value if value.is_cuda else value.numpy()
        return feeds


def _as_tensor(made: Any, like: Tensor) -> Tensor:
    """What a graph made, on the device and in the precision of `like` (B, 4, h, w); its memory where it can be."""
    if like.is_cuda:
        return torch.as_tensor(made, device=like.device).to(like.dtype)
    return torch.from_numpy(np.asarray(made)).to(like.dtype)
