import numpy as np
import pytest

from engine.face.image_file import decode_image
from server.settings import BUNDLED_PORTRAIT


@pytest.fixture(scope="package")
def portrait() -> np.ndarray:
    """The bundled picture (H, W, 3)."""
    return decode_image(BUNDLED_PORTRAIT.read_bytes())
