"""A function of tensors recorded once as a CUDA graph and replayed: one launch instead of thousands.

A denoising step of the full-size nets is some 1,700 small kernels, and a fast GPU waits for the Python
that launches them. It has not been run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

Tree = Any  # tensors and None in tuples and dataclasses
# Runs a function of no arguments for good; gives its outputs and what makes it run again into them.
Record = Callable[[Callable[[], Tree]], tuple[Tree, Callable[[], None]]]
WARM_UP = 3  # runs before the recording: libraries choose their kernels and take their memory there


def over(tree: Tree, do: Callable[[Tensor], Any]) -> Tree:
    """The same tree with `do(tensor)` in the place of every tensor.

    Raises:
        TypeError: something in it is neither a tensor, nor None, a tuple or a dataclass.
    """
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return do(tree)
    if isinstance(tree, tuple):
        return tuple(over(branch, do) for branch in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: over(getattr(tree, f.name), do) for f in fields(tree)})
    raise TypeError(f"a recorded function takes tensors, not {type(tree).__name__}")


def cuda_graph(run: Callable[[], Tree]) -> tuple[Tree, Callable[[], None]]:
    """Record `run` on the current device, after https://docs.pytorch.org/docs/stable/notes/cuda.html.

    Other threads may go on using the device meanwhile.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = run()
    return out, graph.replay


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded call: where its inputs are read and its outputs written, and how it is run."""

    inputs: tuple[Tensor, ...]
    outputs: Tree
    replay: Callable[[], None]


class Recorded:
    """Calls `function` by recordings, one for each structure and shape of its arguments.

    The function must do the same work whatever the numbers in its arguments are: no look at a value
    on the host, no tensor made there. What it returns belongs to the caller: a later call, also
    for another stream, does not change it. For one thread.

    Args:
        record: `cuda_graph`, but where there is no such device.
    """

    def __init__(self, function: Callable[..., Tree], record: Record = cuda_graph) -> None:
        self._function, self._record = function, record
        self._recordings: dict[Tree, Recording] = {}

    def __call__(self, *arguments: Tree) -> Tree:
        """What the function returns for `arguments`."""
        given: list[Tensor] = []
        over(arguments, given.append)
        key = over(arguments, lambda x: (x.shape, x.dtype, x.device))
        if key not in self._recordings:
            self._recordings[key] = self._make(arguments)
        made = self._recordings[key]
        for kept, new in zip(made.inputs, given, strict=True):
            kept.copy_(new)
        made.replay()
        return over(made.outputs, torch.clone)

    def _make(self, arguments: Tree) -> Recording:
        inputs: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            inputs.append(x.clone(memory_format=torch.contiguous_format))
            return inputs[-1]

        kept = over(arguments, keep)
        outputs, replay = self._record(lambda: self._function(*kept))
        return Recording(tuple(inputs), outputs, replay)
