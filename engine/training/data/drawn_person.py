"""What tells one drawn person from another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class DrawnPerson:
    """What tells one drawn person from another."""

    name: str
    stretch: tuple[float, float]  # of the face, across and down
    skin: Colour
    lips: Colour
    hair: Colour
    wall: Colour
    coat: Colour
    embedding: F32  # (512,)

    @classmethod
    def draw(cls, seed: int) -> DrawnPerson:
        """The person of a seed, always the same one."""
        rng = np.random.default_rng(seed)

        def colour(low: int, high: int) -> Colour:
            r, g, b = (int(v) for v in rng.integers(low, high, 3))
            return r, g, b

        tone = int(rng.integers(110, 235))
        skin = (tone, int(tone * 0.82), int(tone * 0.7))
        lips = (int(tone * 0.8), int(tone * 0.35), int(tone * 0.38))
        stretch = (float(rng.uniform(0.9, 1.1)), float(rng.uniform(0.92, 1.1)))
        vector = rng.standard_normal(512).astype(np.float32)
        vector /= np.linalg.norm(vector)
        return cls(
            name=f"drawn{seed}",
            stretch=stretch,
            skin=skin,
            lips=lips,
            hair=colour(10, 120),
            wall=colour(60, 220),
            coat=colour(20, 200),
            embedding=vector,
        )
