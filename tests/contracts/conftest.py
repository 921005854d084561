import numpy as np
import pytest

from server.portraits import decode_image
from server.run import BUNDLED_PORTRAIT


@pytest.fixture(scope="package")
def portrait() -> np.ndarray:
    """The bundled picture (H, W, 3)."""
    return decode_image(BUNDLED_PORTRAIT.read_bytes())
