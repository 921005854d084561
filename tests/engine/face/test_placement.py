"""Points with depth and the head's placement."""

import numpy as np
import pytest

from engine.config import WEIGHTS
from engine.face.landmarks import CROP_UNIT, face_unit
from engine.face.placement import PLACEMENT, SIXTY_EIGHT, depths, landmarks_68, placement
from engine.face.topology import INNER_LOWER_LIP, INNER_UPPER_LIP, LIP_ROWS, STABLE
from engine.motion.retarget import FaceBasis, turn_head

DEPTH = FaceBasis.load(WEIGHTS / "tiny" / "basis.npz").depth


def face() -> np.ndarray:
    """A face seen from the front, somewhere in the picture."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0.3, 0.7, (478, 2)).astype(np.float32)
    points[[33, 263, 2]] = [(0.4, 0.4), (0.6, 0.4), (0.5, 0.52)]
    return points


def test_the_68_points_are_68_different_ones() -> None:
    assert len(set(SIXTY_EIGHT)) == 68
    lips = {p for row in LIP_ROWS for p in row}
    assert set(SIXTY_EIGHT[48:]) <= lips
    assert not set(SIXTY_EIGHT[:48]) & lips
    assert {*INNER_UPPER_LIP, *INNER_LOWER_LIP} >= set(SIXTY_EIGHT[60:])


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.3, 0.0), (-0.2, 0.25)])
def test_depth_is_what_turning_the_head_gives(yaw: float, pitch: float) -> None:
    """A sphere of points turned in 3-D: the z we work out is the z that turning gave."""
    scale = 0.21
    solid = np.c_[face(), np.zeros(478)] - np.r_[face()[list(STABLE)].mean(0), 0]
    unit = CROP_UNIT * face_unit(face())
    depth = (DEPTH - DEPTH[list(STABLE)].mean()) * unit
    x, y, z = solid[:, 0], solid[:, 1], depth
    x, z = np.cos(yaw) * x - np.sin(yaw) * z, np.sin(yaw) * x + np.cos(yaw) * z
    y, z = np.cos(pitch) * y - np.sin(pitch) * z, np.sin(pitch) * y + np.cos(pitch) * z
    turned = (np.c_[x, y] + scale).astype(np.float32)
    found = depths(turned, yaw, pitch, DEPTH)
    wanted = z - z[list(STABLE)].mean()
    # the face's size is measured on the turned face, so depth shrinks with it and roll appears
    assert np.corrcoef(found - found[list(STABLE)].mean(), wanted)[0, 1] > 0.98
    assert turn_head  # the live path turns with the same signs


def test_signs_agree_with_the_live_retargeting() -> None:
    front = face()
    turned = turn_head(front, DEPTH, np.array([0.3, 0, 0, 0, 0, 0], np.float32))
    z = depths(turned, 0.3, 0.0, DEPTH) - depths(front, 0.0, 0.0, DEPTH)
    right, left = front[:, 0] > 0.6, front[:, 0] < 0.4
    assert z[right].mean() > z[left].mean(), "yaw to the right takes the right side away"


def test_placement_numbers() -> None:
    points = face()
    base = placement(points, 0.1, -0.2)
    assert base.shape == (len(PLACEMENT),)
    assert base[:2] == pytest.approx([0.1, -0.2])
    moved = placement(points + np.float32([0.1, -0.05]), 0.1, -0.2)
    np.testing.assert_allclose(moved - base, [0, 0, 0, 0.1, -0.05, 0, 0, 0], atol=1e-6)
    grown = placement(points * np.float32(2), 0, 0)
    assert grown[5] - base[5] == pytest.approx(np.log(2), abs=1e-5)


def test_points_with_depth() -> None:
    rows = landmarks_68(face(), 0.0, 0.0, DEPTH)
    assert rows.shape == (68, 3)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:, :2], face()[list(SIXTY_EIGHT)])
