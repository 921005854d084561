from pathlib import Path
from typing import Any

import pytest

SIDE = 64


@pytest.fixture
def one_thread() -> Any:
    """Threads that wait for each other on a busy machine cost minutes."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of eight drawn people, four frames each."""
    from engine.training.data.drawn_clips import write_drawn_clips

    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_clips(folder, people=8, frames=4, size=SIDE)
    return folder
