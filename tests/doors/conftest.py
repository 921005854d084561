"""Browser clients as npm has them, and pages of the server's own origin that run them."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.sync_api import Browser, Page, Route

from benchmarks.browser import new_page
from benchmarks.server_process import ServerProcess
from server.settings import ServerSettings
from tests.e2e.conftest import FAKE
from tests.e2e.conftest import browser as browser
from tests.e2e.conftest import voice as voice
from tests.server.live import Live, serving

NPM = Path(__file__).parent / "npm"
ENTRIES = ("pipecat", "player", "whip")
PAGE = """<!doctype html><meta charset="utf-8"><title>{bundle}</title><link rel="icon" href="data:,">
<video id="video" autoplay playsinline></video>
<script type="module">import * as kit from "./{bundle}.js"; window.kit = kit;</script>"""
OFFLINE = re.compile(r"ECONN\w+|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT")
OpenKit = Callable[..., Page]


def npm(*words: str) -> None:
    """Run npm in the clients' folder; without npm or a network the test is skipped, and says so."""
    program = shutil.which("npm")
    if program is None:
        pytest.skip("the browser clients of the doors need npm (on Debian: apt-get install npm)")
    try:
        done = subprocess.run(
            [program, *words], cwd=NPM, capture_output=True, text=True, timeout=90
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm {words[0]} did not end in 90 s: the npm registry may be out of reach")
    if done.returncode and (offline := OFFLINE.search(done.stderr)):
        pytest.skip(f"npm {words[0]} found no network ({offline[0]}), which the first run needs")
    assert not done.returncode, done.stderr


@pytest.fixture(scope="session")
def bundles() -> Path:
    """Folder of `pipecat.js`, `player.js` and `whip.js`, modules that hold the clients whole.

    Installed and bundled once for every content of the lock file.
    """
    sources = [NPM / "package-lock.json", *(NPM / f"{name}.js" for name in ENTRIES)]
    content = b"".join(path.read_bytes() for path in sources)
    folder = NPM / "dist" / hashlib.sha256(content).hexdigest()[:16]
    if not all((folder / f"{name}.js").exists() for name in ENTRIES):
        shutil.rmtree(folder.parent, ignore_errors=True)  # bundles of other lock files
        npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        npm("run", "bundle", "--", f"--outdir={folder}")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The server's doors before the fake engine."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with ServerProcess(log, FAKE, ("--max-sessions", "4")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def live() -> AsyncIterator[Live]:
    """A server in this process for all tests of a file."""
    settings = ServerSettings(port=0, offers_per_address=100, capacity=50, max_sessions=50)
    async with serving(settings=settings) as served:
        yield served


@pytest.fixture
def open_kit(browser: Browser, bundles: Path) -> Iterator[OpenKit]:
    """Opens pages with a bundle as `window.kit`, under the server's own address, so that its rules
    for other sites' pages do not matter; every error of a page fails the test but those allowed."""
    pages: list[tuple[Page, list[str], str | None]] = []

    def open_one(url: str, bundle: str, *, allow: str | None = None) -> Page:
        def answer(route: Route) -> None:
            name = route.request.url.rsplit("/", 1)[1]
            if name.endswith(".html"):
                route.fulfill(content_type="text/html", body=PAGE.format(bundle=bundle))
            else:
                route.fulfill(content_type="text/javascript", path=bundles / name)

        page = new_page(browser)
        page.set_default_timeout(20_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(f"page error: {error}"))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        pages.append((page, errors, allow))
        page.route(f"{url}/kit/**", answer)
        page.goto(f"{url}/kit/{bundle}.html")
        page.wait_for_function("window.kit")
        return page

    yield open_one
    for page, _, _ in pages:
        page.context.close()
    wrong = [e for _, errors, allow in pages for e in errors if not (allow and re.search(allow, e))]
    assert not wrong, "\n".join(wrong)
