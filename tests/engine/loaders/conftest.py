from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Stable Diffusion 1.5 in both public layouts, with ControlNet and TAESD."""
    pytest.importorskip("torch")
    from engine.nets.sd15_config import Sd15Config
    from tests.engine.loaders.layouts import write_sd15

    folder = tmp_path_factory.mktemp("public")
    write_sd15(folder, Sd15Config.small())
    return folder
