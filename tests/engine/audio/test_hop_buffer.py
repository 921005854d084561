import numpy as np
import pytest

from engine.audio.hop_buffer import HopBuffer


@pytest.mark.parametrize("cut", [1, 7, 320, 640, 961, 4000])
def test_windows_do_not_depend_on_how_the_sound_was_cut(cut: int) -> None:
    pcm = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    whole = HopBuffer(640, 80).push(pcm)
    buffer = HopBuffer(640, 80)
    pieces = [buffer.push(pcm[i : i + cut]) for i in range(0, len(pcm), cut)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert whole.shape == (6, 720)


def test_window_holds_its_hop_and_the_past() -> None:
    pcm = np.arange(1, 2001, dtype=np.float32)
    windows = HopBuffer(640, 80).push(pcm)
    np.testing.assert_array_equal(windows[0], np.r_[np.zeros(80), pcm[:640]])
    np.testing.assert_array_equal(windows[1], pcm[560:1280])


def test_a_window_comes_as_soon_as_its_hop_is_complete() -> None:
    buffer = HopBuffer(640, 80)
    assert len(buffer.push(np.zeros(639, np.float32))) == 0
    assert len(buffer.push(np.zeros(1, np.float32))) == 1


def test_later_sound_never_changes_an_earlier_window() -> None:
    a = np.zeros(4000, np.float32)
    b = a.copy()
    b[3000:] = 1
    wa, wb = HopBuffer(640, 80).push(a), HopBuffer(640, 80).push(b)
    np.testing.assert_array_equal(wa[:4], wb[:4])
    assert (wa[4] != wb[4]).any()


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((5, 2), np.float32), np.zeros(5, np.int16)])
def test_other_sound_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="float32 of shape"):
        HopBuffer(640, 80).push(bad)


def test_returned_windows_are_the_callers_own() -> None:
    buffer = HopBuffer(4, 2)
    first = buffer.push(np.ones(4, np.float32))
    first[:] = 9
    assert buffer.push(np.ones(4, np.float32)).max() == 1
