from pathlib import Path

import pytest

SIDE = 64


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of eight drawn people, four frames each."""
    from engine.training.data.drawn_clips import write_drawn_clips

    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_clips(folder, people=8, frames=4, size=SIDE)
    return folder
