"""Through Debian's coturn, with a token: a page that may use nothing but a relay goes live."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import httpx
import jwt
import pytest

from benchmarks.server_process import ServerProcess
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.live import wait_live, wait_until

SECRET = "signs the tokens of this very test alone"
TURN_SECRET = "known to coturn and the server"
RELAY_ONLY = """
const Plain = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Plain {
  constructor(config) { super({ ...config, iceTransportPolicy: "relay" }); }
};
"""
WAY = """async () => {
  const all = [...(await window.__connections.at(-1).getStats()).values()];
  const pair = all.find((s) => s.type === "candidate-pair" && s.nominated && s.state === "succeeded");
  return all.find((s) => s.id === pair?.localCandidateId)?.candidateType ?? "";
}"""


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("no turnserver: on Debian `apt-get install coturn`")
    folder, port = tmp_path_factory.mktemp("turn"), free_udp_port()
    command = [program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers"]
    command += ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
    command += ["--use-auth-secret", f"--static-auth-secret={TURN_SECRET}", "--realm=test"]
    command += [f"--pidfile={folder}/pid", f"--userdb={folder}/db", "--log-file=stdout"]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield f"turn:127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture(scope="module")
def server(turn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("PORTRAITTALK__AUTH_SECRET", SECRET)
        environ.setenv("PORTRAITTALK__ICE_SERVERS", turn)
        environ.setenv("PORTRAITTALK__TURN_SECRET", TURN_SECRET)
        with ServerProcess(log, FAKE) as running:
            yield running


def token(*scopes: str) -> str:
    claims = {"sub": "ann", "scope": " ".join(scopes), "exp": int(time.time()) + 300}
    return jwt.encode(claims, SECRET)


def test_a_page_that_may_only_use_a_relay_goes_live(
    server: ServerProcess, open_page: OpenPage
) -> None:
    scopes = ("view", "speak", "control", "portraits")
    page = open_page(f"{server.url}/#token={token(*scopes)}", script=RELAY_ONLY)
    wait_live(page)
    wait_until(page, "a relay is used", lambda: page.evaluate(WAY) == "relay", 10)


def test_a_page_without_a_token_is_told(server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(server.url, allow="401")
    page.wait_for_selector("#pill[data-state=refused]")


EMBED = """async (token) => {
  await import("/embed.js");
  window.face = document.createElement("portrait-talk");
  if (token) face.setAttribute("token", token);
  document.body.append(face);
}"""


def test_the_web_component_brings_its_token(server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}/healthz", allow="401|404")
    page.evaluate(EMBED, None)
    wait_until(page, "it is refused", lambda: page.evaluate("face.state") == "refused", 10)
    page.evaluate("face.remove()")
    page.evaluate(EMBED, token("view", "speak", "control"))
    wait_until(page, "it is live", lambda: page.evaluate("face.state") == "live", 20)
    width = "face.shadowRoot.querySelector('.poster').naturalWidth"
    wait_until(page, "its poster is there", lambda: page.evaluate(width) > 0, 10)


def test_the_page_lists_what_its_token_lets_it(server: ServerProcess) -> None:
    headers = {"Authorization": f"Bearer {token('view')}"}
    answer = httpx.get(f"{server.url}/api/ice-servers", headers=headers, trust_env=False)
    [only] = answer.json()["ice_servers"]
    assert only["urls"].startswith("turn:")
    ends, _, subject = only["username"].partition(":")
    assert subject == "ann"
    assert int(ends) > time.time()
