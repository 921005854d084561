"""What was worked out is taken again for the same names only, and what it cost is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.evaluation.kept import Shelf
from engine.evaluation.measures.costs import Meter, mean, total
from engine.evaluation.measures.measure import vgg_step
from engine.evaluation.measures.reading import changed, spread_out
from engine.evaluation.run import work

pytestmark = pytest.mark.train


def test_what_is_kept_comes_back_until_what_it_follows_from_is_another(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "code 1")
    assert shelf.take("pictures", "a", "b") is None
    shelf.put({"costs": {"x": 1.5}}, {"row": np.arange(3.0)}, "pictures", "a", "b")
    saved = shelf.take("pictures", "a", "b")
    assert saved is not None
    assert saved.told == {"costs": {"x": 1.5}}
    assert saved.arrays["row"].tolist() == [0, 1, 2]
    for other, of in ((shelf, ("a", "c")), (shelf, ("ab", "")), (Shelf(tmp_path, "2"), ("a", "b"))):
        assert other.take("pictures", *of) is None
    assert shelf.take("pixels", "a", "b") is None
    nowhere = Shelf(None)
    nowhere.put({}, {}, "pictures", "a")
    assert nowhere.take("pictures", "a") is None


def test_each_part_has_its_own_peak_of_memory_and_its_own_processor_time() -> None:
    meter = Meter()
    with meter.of("large"):
        np.ones(200 << 20, np.uint8).sum()
    with meter.of("small"):
        pass
    large, small = meter.costs["large"], meter.costs["small"]
    assert large["peak_mb"] > small["peak_mb"] + 150
    assert large["cpu_s"] > small["cpu_s"]
    again = Meter()
    again.add("large", large)
    again.add("large", large)
    assert again.costs["large"]["seconds"] == pytest.approx(2 * large["seconds"], abs=2e-3)
    assert total([large, small])["peak_mb"] == round(large["peak_mb"])
    assert mean([large, large])["cpu_s"] == pytest.approx(large["cpu_s"], abs=2e-3)


def test_a_picture_that_stands_still_has_the_numbers_of_the_one_before() -> None:
    frames = np.array([1, 1, 2, 2, 2, 3], np.uint8)[:, None, None, None] * np.ones(
        (1, 4, 4, 3), np.uint8
    )
    new = changed(frames)
    assert new.tolist() == [True, False, True, False, False, True]
    assert spread_out(np.array([0.5, 0.7]), new).tolist() == [0, 0.5, 0, 0, 0.7]


def test_larger_frames_are_compared_by_vgg_less_often() -> None:
    assert vgg_step(250, 256, 256) == vgg_step(250, 128, 128) == 5
    assert vgg_step(250, 512, 512) == 20
    assert vgg_step(250, 1080, 1080) == 25  # ten frames at least
    assert vgg_step(20, 512, 512) == 5


def test_the_time_that_is_left_counts_what_is_only_done_once() -> None:
    clip = SimpleNamespace(
        name="a", real=Path("a.mkv"), pcm=np.zeros(160_000), portrait=np.zeros((256, 256, 3))
    )
    jobs = [(s, p, clip) for s in ("still", "wrong-sound", "full") for p in ("pose-given", "free")]
    steps = np.diff(work(jobs))  # type: ignore[arg-type]
    assert (steps > 0).all()
    assert steps[1] < steps[0]  # the same pictures again
    assert steps[5] > steps[1]  # full has others in each protocol
    assert work([]) == [1]
