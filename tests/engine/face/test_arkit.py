import numpy as np
import pytest

from engine.face import arkit


def test_the_52_names_are_unique_and_in_apples_order() -> None:
    assert len(arkit.NAMES) == len(set(arkit.NAMES)) == arkit.COUNT == 52
    assert arkit.NAMES[0] == "eyeBlinkLeft"
    assert arkit.NAMES[14:18] == ("jawForward", "jawLeft", "jawRight", "jawOpen")
    assert arkit.NAMES[-1] == "tongueOut"


def test_index_finds_names_and_helps_with_typos() -> None:
    assert arkit.NAMES[arkit.index("jawOpen")] == "jawOpen"
    with pytest.raises(ValueError, match="did you mean 'mouthPucker'"):
        arkit.index("mouthPuker")


def test_pairs_differ_only_in_their_side() -> None:
    for left, right in arkit.PAIRS:
        assert arkit.NAMES[left].replace("Left", "Right") == arkit.NAMES[right] != arkit.NAMES[left]
    assert sum("Left" in n or "Right" in n for n in arkit.NAMES) == 2 * len(arkit.PAIRS)


def test_mirroring_twice_changes_nothing_and_once_swaps_sides() -> None:
    v = np.arange(52, dtype=np.float32)
    np.testing.assert_array_equal(v[arkit.MIRROR][arkit.MIRROR], v)
    assert v[arkit.MIRROR][arkit.index("jawLeft")] == arkit.index("jawRight")
    assert v[arkit.MIRROR][arkit.index("jawOpen")] == arkit.index("jawOpen")
