import numpy as np
import pytest

from engine.config import EngineConfig
from engine.face import arkit
from engine.face.topology import INNER_LOWER_LIP, INNER_UPPER_LIP, LEFT_BROW, LEFT_LIDS
from engine.motion.expression import WORDS, parse
from engine.motion.expression_shapes import face_shapes
from engine.motion.retarget import FaceBasis, retarget

JAW = arkit.index("jawOpen")
STILL = np.zeros(6, np.float32)
REST = np.zeros(arkit.COUNT, np.float32)


@pytest.fixture(scope="module")
def basis() -> FaceBasis:
    return FaceBasis.load(EngineConfig().weights / "basis.npz")


@pytest.fixture(scope="module")
def neutral() -> np.ndarray:
    """A plain face in crop units, its lips lying on each other."""
    rng = np.random.default_rng(0)
    face = rng.uniform((-0.3, -0.9), (1.3, 1.2), (478, 2)).astype(np.float32)
    face[33], face[263] = (-0.1, -0.5), (1.1, -0.5)
    line = np.linspace(0, 1, 11)
    for row in (INNER_UPPER_LIP, INNER_LOWER_LIP):
        face[list(row)] = np.c_[0.2 + 0.6 * line, 0.5 + 0.02 * np.sin(np.pi * line)]
    face[61], face[291] = (0.17, 0.5), (0.83, 0.5)
    face[list(LEFT_BROW)] = np.c_[np.linspace(0.6, 1.1, 5), np.full(5, -0.75)]
    for lid, lift in zip(LEFT_LIDS, (-0.06, 0.04), strict=True):
        arch = np.sin(np.linspace(0, np.pi, 9))
        face[list(lid)] = np.c_[np.linspace(0.6, 1.1, 9), -0.5 + lift * arch]
    return face


@pytest.fixture(scope="module")
def shapes(neutral: np.ndarray, basis: FaceBasis) -> np.ndarray:
    return face_shapes(neutral, basis.basis[JAW])


def shown(shapes: np.ndarray, word: str) -> np.ndarray:
    return np.tensordot(parse(word)[0].offsets, shapes, 1).astype(np.float32)


def gap(face: np.ndarray) -> float:
    return float((face[list(INNER_LOWER_LIP)] - face[list(INNER_UPPER_LIP)])[:, 1].max())


@pytest.mark.parametrize("word", [w for w in WORDS if w != "surprised"])
def test_closed_lips_stay_closed_under_every_word(
    word: str, shapes: np.ndarray, neutral: np.ndarray, basis: FaceBasis
) -> None:
    assert gap(retarget(neutral, basis, REST, STILL, shown(shapes, word))) < 1e-5


def test_surprise_opens_the_mouth(
    shapes: np.ndarray, neutral: np.ndarray, basis: FaceBasis
) -> None:
    assert gap(retarget(neutral, basis, REST, STILL, shown(shapes, "surprised"))) > 0.05


def test_words_move_what_they_name(shapes: np.ndarray) -> None:
    smile, sad = shown(shapes, "smile"), shown(shapes, "sad")
    assert smile[61, 1] < -0.05  # corners of the mouth: up is negative
    assert smile[61, 0] < -0.05 < 0.05 < smile[291, 0]
    assert sad[61, 1] > 0.05
    brow = list(LEFT_BROW)
    assert shown(shapes, "brows up")[brow, 1].mean() < -0.05
    assert shown(shapes, "brows down")[brow, 1].mean() > 0.03
    wide = shown(shapes, "eyes wide")
    assert wide[LEFT_LIDS[0][4], 1] < -0.02 < 0 < wide[LEFT_LIDS[1][4], 1]


def test_a_wink_is_one_sided(shapes: np.ndarray) -> None:
    left = shown(shapes, "wink left")
    assert np.abs(left[291]).max() > 2 * np.abs(left[61]).max()


def test_the_size_follows_the_face(neutral: np.ndarray, basis: FaceBasis) -> None:
    once, twice = (face_shapes(neutral * size, basis.basis[JAW] * size) for size in (1, 2))
    np.testing.assert_allclose(twice, once * 2, atol=1e-5)
