"""What comes of measuring one video."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Measured:
    """The figures of one video.

    Attributes:
        values: by the names of `COLUMNS`; what could not be measured is left out and told in `notes`.
        series: a value per frame (T,), for plots.
        notes: what was handled or left out, in words.
        features: what measures of a whole set need: "inception" (T, 2048).
        costs: of each measure by its name: seconds, cpu_s, peak_mb; what was taken again tells what it had cost.
    """

    values: dict[str, float] = field(default_factory=dict)
    series: dict[str, NDArray[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    features: dict[str, NDArray[Any]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
