"""The tiny renderer with a part of it left out, to learn what the part is good for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.backends import Graph, GraphSpec, Tensor
from engine.errors import ConfigError
from engine.render.specs import GUIDE
from engine.render.tiny import Job, TinyRenderer
from engine.render.tiny_face import FrameCache
from engine.types import RgbImage

F32 = NDArray[np.float32]
Ablation = Literal["no-cache", "no-animatenet", "warp"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)


class WithoutGuidance:
    """AnimateNet's graph, which says nothing: what it would add is 0."""

    spec = GUIDE

    def __init__(self, inner: Graph) -> None:
        self._inner = inner

    def __call__(self, **feeds: Any) -> dict[str, Tensor]:
        """Run once."""
        return {name: np.zeros_like(np.asarray(x)) for name, x in self._inner(**feeds).items()}

    def each(self, rows: Sequence[Any]) -> list[dict[str, Tensor]]:
        """Run for several streams."""
        return [self(**row) for row in rows]


class AblatedRenderer(TinyRenderer):
    """`TinyRenderer` without one part.

    Args:
        without: `no-cache`: each frame sees the portrait where it saw the frame before; `no-animatenet`:
            nothing is added to IdentityNet; `warp`: nothing is painted.
    """

    def __init__(
        self,
        without: Ablation,
        load: Callable[[GraphSpec], Graph],
        steps: int = 1,
        put: Callable[[NDArray[Any]], Tensor] = lambda array: array,
    ) -> None:
        if without not in ABLATIONS:
            raise ConfigError(f"{without!r} is no ablation; one of {', '.join(ABLATIONS)}")
        super().__init__(load, steps, put)
        self._cacheless = without == "no-cache"
        if without == "no-animatenet":
            self._guide = WithoutGuidance(self._guide)
        self._bare = without == "warp"

    def draw(self, jobs: Sequence[Job]) -> list[tuple[RgbImage, FrameCache]]:
        """Draw one frame (H, W, 3) of each stream, painting its crop afresh."""
        if not self._cacheless:
            return super().draw(jobs)
        cold = [
            (face, replace(cache, latents=self.cold(face).latents, keys=self.cold(face).keys), aim)
            for face, cache, aim in jobs
        ]
        return super().draw(cold)

    def _paint(
        self, jobs: Sequence[Job], levels: Sequence[F32]
    ) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]], list[Tensor]]:
        """As the renderer's; of bare frames every patch shows the moved portrait through.

        Args:
            levels: landmarks (1, 478, 2) of each.
        """
        geometry, made, patches = super()._paint(jobs, levels)
        return geometry, made, [through(patch) for patch in patches] if self._bare else patches


def through(patch: Tensor) -> F32:
    """A patch (1, 4, h, w) that paints nothing: its colours, times what they cover, are 0."""
    clear = np.zeros_like(np.asarray(patch))
    clear[:, 3:] = 1
    return clear
