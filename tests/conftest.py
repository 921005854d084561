"""How the whole suite runs: which tests share a process, and how patient the generated ones are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

# Other work shares the machine: a slow example says nothing.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch's: several that wait for each other on a busy machine cost minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def needs_browser(file: str) -> bool:
    """Whether tests of the file start Chromium."""
    path = HERE.parent / file
    return HERE / "e2e" in path.parents or "mark.e2e" in path.read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of tests that run side by side a file stays whole, as its tests share servers.

    All that need a browser stay in one process: two at a time are too much for two processors.
    """
    from xdist.scheduler import LoadFileScheduling

    class FilesWhole(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "browser" if needs_browser(file) else file

    return FilesWhole(config, log)


@pytest.fixture(scope="session", autouse=True)
def compiled_networks() -> Iterator[None]:
    """Each of the embedded networks is compiled once."""
    from tests.compiled_once import compile_once

    with pytest.MonkeyPatch.context() as patch:
        compile_once(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept for a user, such as a certificate for development, is kept in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield
