"""The speech encoder's Python: what goes to the graph and what comes back, on a graph that only counts."""

import numpy as np
import pytest

from engine.audio.rotary import rotations
from engine.audio.speech_encoder import HOP, PAST, StreamingSpeechEncoder
from engine.backends import GraphSpec, TensorSpec

SPEC = GraphSpec(
    "speech",
    (
        TensorSpec("window", ("B", PAST + HOP)),
        TensorSpec("turns", ("B", 2, 5, 288)),
        TensorSpec("count", ("B", 1)),
    ),
    (TensorSpec("features", ("B", 2, 3)), TensorSpec("count_after", ("B", 1))),
)


class Counter:
    """Features: first sample, last sample and how many hops were heard before.

    The rotations are those of that hop.
    """

    spec = SPEC

    def each(self, rows: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        return [self(**feeds) for feeds in rows]

    def __call__(self, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        self.spec.check(feeds)
        window, count = feeds["window"], feeds["count"]
        hop = rotations(2 * int(count[0, 0]), 5)
        np.testing.assert_array_equal(feeds["turns"][0], hop)
        row = np.array([window[0, 0], window[0, -1], count[0, 0]], np.float32)
        return {"features": np.stack([row, row])[None], "count_after": count + 1}


def test_each_hop_brings_two_frames_and_hands_its_memory_on() -> None:
    encoder = StreamingSpeechEncoder(Counter())
    state = encoder.start()
    features = encoder.step(state, np.arange(3 * HOP, dtype=np.float32))
    assert features.shape == (6, 3)
    settled = features[0, 2]
    assert settled >= 20  # a new stream has heard a while of silence
    np.testing.assert_array_equal(features[:, 2] - settled, [0, 0, 1, 1, 2, 2])


def test_windows_overlap_and_begin_in_silence() -> None:
    encoder = StreamingSpeechEncoder(Counter())
    features = encoder.step(encoder.start(), np.arange(1, 2 * HOP + 1, dtype=np.float32))
    np.testing.assert_array_equal(features[[0, 2], 0], [0, HOP - PAST + 1])
    np.testing.assert_array_equal(features[[0, 2], 1], [HOP, 2 * HOP])


def test_less_than_a_hop_brings_nothing_yet() -> None:
    encoder = StreamingSpeechEncoder(Counter())
    state = encoder.start()
    assert encoder.step(state, np.zeros(HOP - 1, np.float32)).shape == (0, 3)
    assert encoder.step(state, np.zeros(1, np.float32)).shape == (2, 3)


def test_streams_start_alike_whatever_others_heard() -> None:
    encoder = StreamingSpeechEncoder(Counter())
    first = encoder.step(encoder.start(), np.zeros(5 * HOP, np.float32))
    np.testing.assert_array_equal(
        encoder.step(encoder.start(), np.zeros(5 * HOP, np.float32)), first
    )


def test_sound_of_another_kind_is_refused() -> None:
    encoder = StreamingSpeechEncoder(Counter())
    with pytest.raises(ValueError, match="float32"):
        encoder.step(encoder.start(), np.zeros(HOP, np.int16))  # type: ignore[arg-type]
