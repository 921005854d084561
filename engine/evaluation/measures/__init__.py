"""The measures of the papers' tables, and what they leave out: one video, or a set of them."""

from engine.evaluation.measures.clip import Clip
from engine.evaluation.measures.columns import COLUMNS, Column
from engine.evaluation.measures.measure import measure_clip, measure_set
from engine.evaluation.measures.measured import Measured
from engine.evaluation.measures.settings import Settings

__all__ = ["COLUMNS", "Clip", "Column", "Measured", "Settings", "measure_clip", "measure_set"]
