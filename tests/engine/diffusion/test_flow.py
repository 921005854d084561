"""The rectified flow: times from noise to the picture, and Euler along the straight path."""

import itertools

import numpy as np
import pytest

from engine.diffusion.flow import flow_path, sampling_times


@pytest.mark.parametrize("steps", [1, 2, 25])
def test_the_sampler_goes_from_noise_to_the_picture(steps: int) -> None:
    times = sampling_times(steps)
    assert len(times) == steps + 1
    assert times[0] == 1
    assert times[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_model_that_knows_the_answer_is_followed_straight_to_it(steps: int) -> None:
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 1, 4, 3, 3), np.float32)
    path = list(flow_path(lambda z_t, now: clean, noise, steps))
    assert [left for _, left in path] == sampling_times(steps)[1:]
    for z_t, left in path:
        np.testing.assert_allclose(z_t, (1 - left) * clean + left * noise, atol=1e-5)
    np.testing.assert_array_equal(path[-1][0], clean)
