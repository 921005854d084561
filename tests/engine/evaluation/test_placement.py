"""Placement read from frames against the placement commanded: known answers, by hand and on a real picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from engine.evaluation.measures.placement import placement_errors, placements
from engine.evaluation.track import follow
from engine.face.image_file import decode_image
from engine.face.placement import placement
from server.settings import BUNDLED_PORTRAIT

pytestmark = pytest.mark.train
TURN, SIZE, SHIFT = math.radians(8), 1.1, np.array([14.0, -9.0])


def test_errors_are_in_degrees_and_percent_and_cross_half_a_turn() -> None:
    commanded = np.zeros((4, 8))
    commanded[:, 2] = math.radians(179)
    commanded[:, 5] = math.log(0.2)
    read = commanded + [0.1, -0.2, math.radians(2), 0.03, 0.04, math.log(1.25), 9, 9]
    read[:, 2] -= 2 * math.pi  # the same angle
    errors = placement_errors(commanded, read)
    assert errors == pytest.approx(
        {
            "head_yaw_error": math.degrees(0.1),
            "head_pitch_error": math.degrees(0.2),
            "head_roll_error": 2.0,
            "head_shift_error": 25.0,
            "head_size_error": 25.0,
        }
    )
    with pytest.raises(ValueError, match="wants"):
        placement_errors(commanded, read[1:])


def test_a_real_face_moved_by_hand_is_read_where_it_was_put() -> None:
    """Turned, enlarged and shifted in the picture by a known amount: the command; left alone: the amount."""
    rgb = decode_image(BUNDLED_PORTRAIT.read_bytes())
    side = rgb.shape[1]
    rest = follow(rgb[None]).landmarks[0]
    middle = rest.mean(0)
    c, s = SIZE * math.cos(TURN), SIZE * math.sin(TURN)
    turn = np.array([[c, -s], [s, c]])
    back = np.linalg.inv(turn)
    a, b = back[0], back[1]
    offset = middle - back @ (middle + SHIFT)
    moved = Image.fromarray(rgb).transform(
        (side, rgb.shape[0]),
        Image.Transform.AFFINE,
        (a[0], a[1], offset[0], b[0], b[1], offset[1]),
        Image.Resampling.BICUBIC,
    )
    track = follow(np.stack([rgb, np.asarray(moved)]))
    read = placements(track, 1.0, side)
    asked = np.stack([rest, (rest - middle) @ turn.T + middle + SHIFT]) / side
    commanded = np.stack([placement(points, *read[0, :2]) for points in asked])
    errors = placement_errors(commanded, read)
    assert errors["head_roll_error"] < 0.6
    assert errors["head_shift_error"] < 1.5
    assert errors["head_size_error"] < 1.5
    assert errors["head_yaw_error"] < 3
    still = placement_errors(
        commanded[[0, 0]], read
    )  # twice the half of it: the first frame has none
    assert 2 * still["head_roll_error"] == pytest.approx(8, abs=0.8)
    assert 2 * still["head_size_error"] == pytest.approx(10, abs=2)
    eyes = np.linalg.norm(rest[263] - rest[33])
    steady = commanded[1, 3:5] - commanded[0, 3:5]
    wanted = 100 * np.hypot(*steady) * side / eyes
    assert 2 * still["head_shift_error"] == pytest.approx(wanted, abs=3)
