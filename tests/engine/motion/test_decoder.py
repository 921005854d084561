"""The motion decoder's Python on a graph that only counts."""

import numpy as np
import pytest

from engine.backends import GraphSpec, TensorSpec
from engine.face import arkit
from engine.motion.decoder import LOOKAHEAD, MotionDecoder

SPEC = GraphSpec(
    "motion",
    (
        TensorSpec("features", ("B", 2, 3)),
        TensorSpec("memory", ("B", 1, 1)),
        TensorSpec("noise", ("B", 1, 4)),
        TensorSpec("style", ("B", 1)),
    ),
    (
        TensorSpec("coefficients", ("B", arkit.COUNT)),
        TensorSpec("energy", ("B", 1)),
        TensorSpec("memory_after", ("B", 1, 1)),
    ),
)


class Echo:
    """Coefficient 0 is the first feature, 1 the noise, 2 the hops heard."""

    spec = SPEC

    def each(self, rows: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        return [self(**feeds) for feeds in rows]

    def __call__(self, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        self.spec.check(feeds)
        out = np.zeros((1, arkit.COUNT), np.float32)
        out[0, 0] = feeds["features"][0, 0, 0]
        out[0, 1] = feeds["noise"].sum()
        out[0, 2] = feeds["memory"][0, 0, 0]
        out[0, 3] = feeds["style"][0, 0]
        energy = np.full((1, 1), feeds["features"][0, 1, 0], np.float32)
        return {"coefficients": out, "energy": energy, "memory_after": feeds["memory"] + 1}


def ramp(frames: int) -> np.ndarray:
    return np.repeat(np.arange(frames, dtype=np.float32)[:, None], 3, 1)


def test_a_frame_is_decided_two_hops_after_it() -> None:
    decoder = MotionDecoder(Echo())
    state = decoder.start()
    assert len(decoder.step(state, ramp(2 * LOOKAHEAD))) == 0
    assert len(decoder.step(state, ramp(2))) == 1


def test_odd_feature_frames_wait_for_their_other_half() -> None:
    decoder = MotionDecoder(Echo())
    whole = decoder.step(decoder.start(), ramp(20))
    state = decoder.start()
    parts = [decoder.step(state, f) for f in np.split(ramp(20), [1, 2, 7, 12, 19])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.shape == (10 - LOOKAHEAD, arkit.COUNT)
    np.testing.assert_array_equal(whole[:, 0], np.arange(4, 20, 2))


def test_energy_belongs_to_the_frames_just_returned() -> None:
    decoder = MotionDecoder(Echo())
    state = decoder.start()
    decoder.step(state, ramp(8))
    np.testing.assert_array_equal(state.energy, [5, 7])
    decoder.step(state, ramp(0))
    assert len(state.energy) == 0


def test_without_temperature_nothing_is_random_with_it_the_seed_decides() -> None:
    assert not MotionDecoder(Echo()).step(MotionDecoder(Echo()).start(3), ramp(20))[:, 1].any()
    lively = MotionDecoder(Echo(), temperature=0.5)
    a, b, c = (lively.step(lively.start(seed), ramp(20))[:, 1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all()


def test_style_reaches_the_graph() -> None:
    decoder = MotionDecoder(Echo(), style=0.25)
    assert (decoder.step(decoder.start(), ramp(8))[:, 3] == np.float32(0.25)).all()


def test_a_new_stream_has_settled_in_silence() -> None:
    decoder = MotionDecoder(Echo())
    assert decoder.step(decoder.start(), ramp(6))[0, 2] >= 20


def test_features_of_another_width_are_refused() -> None:
    decoder = MotionDecoder(Echo())
    with pytest.raises(ValueError, match=r"\(T, 3\)"):
        decoder.step(decoder.start(), np.zeros((2, 4), np.float32))


class Steady(Echo):
    """Always the same mouth."""

    def __init__(self, **values: float) -> None:
        self.values = values

    def each(self, rows: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        return [self(**feeds) for feeds in rows]

    def __call__(self, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        out = super().__call__(**feeds)
        for name, value in self.values.items():
            out["coefficients"][0, arkit.NAMES.index(name)] = value
        return out


def jaw(value: float, style: float) -> float:
    decoder = MotionDecoder(Steady(jawOpen=value, mouthPucker=0.3), style=style)
    rows = decoder.step(decoder.start(), ramp(8))
    assert rows[0, arkit.NAMES.index("mouthPucker")] == pytest.approx(0.3)
    return float(rows[0, arkit.NAMES.index("jawOpen")])


def test_averaged_mouths_are_stretched_but_stay_in_range() -> None:
    assert jaw(0.0, 0.0) == 0
    assert jaw(0.015, 0.0) == 0, "between words the mouth closes"
    assert jaw(0.089, 0.0) == pytest.approx(0.08, abs=1e-6)
    assert jaw(0.30, 0.0) > 0.3
    assert jaw(1.0, 0.0) == 1


def test_the_recorded_style_is_left_as_it_was_learnt() -> None:
    assert jaw(0.05, 1.0) == pytest.approx(0.05)
