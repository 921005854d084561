"""How a head is framed, and what is left of its picture for a face encoder."""

from __future__ import annotations

import numpy as np
import pytest

from engine.face.framing import SIDE, cut_square, head_square
from engine.face.landmarks import crop_transform
from engine.render.base import Portrait
from engine.render.head_square import cut_head


def oval(x: float, y: float, height: float) -> np.ndarray:
    """Landmarks (478, 2) on an ellipse of this middle and height, three quarters as wide."""
    angle = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    ring = np.stack([0.375 * np.sin(angle), -0.5 * np.cos(angle)], 1)
    return (ring * height + [x, y]).astype(np.float32)


def test_a_portrait_is_framed_as_the_clips_of_training_are() -> None:
    """The face as high in the square, and at the same place, whoever cuts it."""
    face, rgb = oval(500, 480, 200), np.zeros((900, 1000, 3), np.uint8)
    corner, side = head_square(face[None], 900, 1000)
    trained = (face - corner) / side
    _, to_square = cut_head(Portrait(rgb, face, crop_transform(face)), SIDE)
    served = (face @ to_square[:, :2].T + to_square[:, 2]) / SIDE
    np.testing.assert_allclose(served, trained, atol=1e-6)
    assert np.ptp(trained[:, 1]) == pytest.approx(0.5, abs=1e-3)
    assert trained[:, 1].mean() == pytest.approx(0.56, abs=1e-3)
    assert trained[:, 0].mean() == pytest.approx(0.5, abs=1e-3)


def test_near_an_edge_the_square_stays_inside_the_picture() -> None:
    for x, y, size in ((80, 90, (400, 600)), (560, 330, (400, 600)), (150, 150, (300, 260))):
        corner, side = head_square(oval(x, y, 160)[None], *size)
        assert corner.min() >= 0
        assert corner[0] + side <= size[1] + 1e-3
        assert corner[1] + side <= size[0] + 1e-3


def test_a_head_that_moves_is_whole_in_every_frame() -> None:
    film = np.stack([oval(100 + 30 * i, 200, 120) for i in range(9)])
    corner, side = head_square(film, 400, 600)
    inside = (film - corner) / side
    assert inside.min() >= -1e-6
    assert inside.max() <= 1 + 1e-6
    corner, side = head_square(film, 200, 600)  # it moves over more than the picture is high
    inside = (film - corner) / side
    assert inside.min() >= -1e-6
    assert inside.max() <= 1 + 1e-6
    assert cut_square(np.full((200, 600, 3), 255, np.uint8), corner, side, 64)[0].max() == 0
