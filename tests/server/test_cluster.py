"""Several servers as one: where sessions go, how requests find them, what a lost replica leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import uvicorn
from websockets.asyncio.client import connect

from benchmarks.server_process import free_port
from client_example.headless import Viewer
from engine.errors import ConfigError
from server.cluster.options import ClusterOptions, check_room
from server.cluster.placement import Load, choose, wanted
from server.cluster.run import environment_of
from server.live.names import SECRET_HEADER, new_session, resume_token, session_named
from server.settings import ServerSettings
from server.trust.tokens import ACCESSES, sign
from tests.server.live import Live, serving, until, watching
from tests.server.pictures import encoded, photo

ROOT = Path(__file__).parents[2]
SECRET, KEY = "c" * 64, "k" * 32
NAMES = ("0000000a", "0000000b", "0000000c")


def test_a_session_goes_where_the_largest_share_of_places_is_free() -> None:
    loads = {"a": Load(8, 5, 10.0), "b": Load(4, 1, 30.0), "c": Load(16, 0, 9.0, draining=True)}
    assert choose(loads.items()) == "b"
    loads["b"].sent = 2  # placed since the report
    assert choose(loads.items()) == "a"
    assert choose({"slow": Load(4, 0, 30.0), "fast": Load(4, 0, 10.0)}.items()) == "fast"
    assert choose({"full": Load(2, 2, 1.0), "fuller": Load(2, 3, 1.0)}.items()) == "full"
    assert choose({"c": loads["c"]}.items()) is None


@pytest.mark.parametrize(
    ("in_use", "replicas", "count"),
    [(0, 3, 1), (3, 1, 1), (3.1, 1, 2), (9, 3, 3), (12, 3, 4), (99, 3, 5)],
)
def test_replicas_are_added_before_places_run_out(in_use: float, replicas: int, count: int) -> None:
    assert wanted(in_use, 4.0 * replicas, replicas, least=1, most=5) == count


def test_ids_calls_and_tokens_name_their_replica_and_cannot_be_made_up() -> None:
    session = new_session("0000000a")
    token = resume_token(SECRET, session)
    assert session_named(session) == session_named(f"rtc_{session}") == session
    assert session_named(token) == session
    assert token == resume_token(SECRET, session) != resume_token("other", session)
    assert session_named(new_session("")) is None
    assert resume_token("", session) != resume_token("", session)


def test_more_replicas_than_the_machines_have_room_for_are_refused_in_words() -> None:
    check_room(1, ClusterOptions(min_replicas=2, per_machine=2))
    check_room(2, ClusterOptions(min_replicas=2))
    with pytest.raises(ConfigError, match=r"Ray has 1 machine\(s\) for 1 each.*--per-machine"):
        check_room(1, ClusterOptions(min_replicas=2))


def test_a_replica_gets_the_flags_and_variables_of_the_cluster() -> None:
    environ = {"PORTRAITTALK__CODEC": "vp8", "PATH": "/bin"}
    made = environment_of({"codec": "h264", "port": None, "allow_host": ["a.example"]}, environ)
    settings = ServerSettings.merge({**made, "PORTRAITTALK__HOST": "0.0.0.0"}, {})
    assert (settings.codec, settings.allow_host) == ("h264", ("*",))
    assert settings.connections_per_address == 0


class Cluster:
    """The ingress and what is behind it, in this process."""

    def __init__(self, url: str, replicas: dict[str, Live]) -> None:
        self.url, self.replicas = url, replicas


@asynccontextmanager
async def clustered(secrets: tuple[str, ...] = ()) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        replicas = {}
        for name in NAMES:
            settings = ServerSettings(
                port=0, capacity=2, replica=name, cluster_secret=SECRET, auth_secret=secrets
            )
            replicas[name] = await stack.enter_async_context(serving(settings=settings))

        urls = {name: live.url for name, live in replicas.items()}
        settings = ServerSettings(port=0, auth_secret=secrets)
        url = await stack.enter_async_context(entered(settings, urls))
        yield Cluster(url, replicas)


@asynccontextmanager
async def entered(settings: ServerSettings, urls: dict[str, str]) -> AsyncIterator[str]:
    """The ingress of replicas at these addresses, once it knows them all."""
    pytest.importorskip("aiohttp", reason="the extra ray is not installed")
    from server.cluster.ingress import create_ingress

    async def find() -> dict[str, str]:
        return urls

    app = create_ingress(settings, SECRET, find)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", ws="websockets-sansio", loop="asyncio")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    await until(lambda: len(app.state.members.loads) == len(NAMES), 5)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


async def test_one_address_serves_the_sessions_of_three_replicas() -> None:
    async with clustered() as cluster, httpx.AsyncClient(base_url=cluster.url) as http:
        made = [(await http.post("/api/sessions", json={})).json()["session_id"] for _ in NAMES]
        assert {name.partition(".")[0] for name in made} == set(NAMES)
        for session in made:
            shown = await http.patch(f"/api/sessions/{session}", json={"state": "thinking"})
            assert shown.json()["state"] == "thinking"
            url = f"{cluster.url.replace('http', 'ws')}/api/sessions/{session}/speech?rate_hz=16000"
            async with connect(url, proxy=None) as speech:
                assert json.loads(await speech.recv())["session_id"] == session
                async with watching(cluster, session_id=session):
                    await speech.send(bytes(3200))
        assert [len(live.service.sessions) for live in cluster.replicas.values()] == [1, 1, 1]
        ready = (await http.get("/readyz")).json()
        assert (ready["status"], ready["replicas"], ready["places"]) == ("ready", 3, 6)
        whole = (await http.get("/metrics")).text
        assert all(f'portraittalk_sessions{{replica="{name}"}} 1.0' in whole for name in NAMES)
        assert (await http.get("/api/sessions/0000000a.aaaaaaaaaaaaaaaa")).status_code == 404
        assert (await http.get("/cluster/report")).status_code == 404
        direct = cluster.replicas[NAMES[0]].http
        assert (await direct.get("/api/config")).status_code == 403
        assert (await direct.get("/api/config", headers={SECRET_HEADER: SECRET})).status_code == 200


def holds(portrait: str) -> Callable[[Live], bool]:
    return lambda live: live.service.portraits.look_up(portrait) is not None


async def test_a_portrait_is_known_on_every_replica_by_its_owner_alone() -> None:
    tokens = [sign(KEY, subject, ACCESSES, time.time() + 60) for subject in ("ann", "bob")]
    ann, bob = ({"Authorization": f"Bearer {token}"} for token in tokens)
    async with clustered((KEY,)) as cluster, httpx.AsyncClient(base_url=cluster.url) as http:
        added = await http.post(
            "/api/portraits",
            content=encoded(photo()),
            headers={
                **ann,
                "Content-Type": "image/png",
                "Consent": '{"who": "Ann", "purpose": "tests"}',
            },
        )
        portrait = added.json()["id"]
        for _ in NAMES:
            made = await http.post("/api/sessions", json={"portrait_id": portrait}, headers=ann)
            assert made.status_code == 201, made.text
        assert [len(live.service.sessions) for live in cluster.replicas.values()] == [1, 1, 1]
        assert (await http.get(f"/api/portraits/{portrait}/image", headers=ann)).status_code == 200
        refused = await http.post("/api/sessions", json={"portrait_id": portrait}, headers=bob)
        assert refused.json()["error"]["code"] == "unknown_portrait"
        assert (await http.get("/api/portraits")).status_code == 401
        known = [live.service.portraits.look_up(portrait) for live in cluster.replicas.values()]
        assert len({each.consent for each in known if each is not None}) == 1
        assert all(each is not None and each.consent is not None for each in known)
        await http.delete(f"/api/sessions/none?portrait_id={portrait}", headers=bob)
        assert (await http.get(f"/api/portraits/{portrait}/image", headers=ann)).status_code == 200
        gone = await http.delete(f"/api/portraits/{portrait}", headers=ann)
        assert gone.status_code == 204
        await until(lambda: not any(map(holds(portrait), cluster.replicas.values())), 5)


@contextmanager
def processes() -> Iterator[dict[str, tuple[str, subprocess.Popen[str]]]]:
    """Three fake servers, each in a process of its own, as their actors start them."""
    started = {}
    with ExitStack() as stack:
        for name in NAMES:
            own = {"PORT": "0", "REPLICA": name, "CLUSTER_SECRET": SECRET, "CAPACITY": "2"}
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.server.fake_server", "--step-ms", "1"],
                cwd=ROOT,
                env={**os.environ, **{f"PORTRAITTALK__{key}": value for key, value in own.items()}},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started[name] = process
        yield {
            name: (process.stdout.readline().strip().rstrip("/"), process)
            for name, process in started.items()
            if process.stdout is not None
        }


async def test_the_session_of_a_killed_replica_comes_back_within_two_seconds() -> None:
    with processes() as replicas:
        urls = {name: url for name, (url, _) in replicas.items()}
        async with (
            entered(ServerSettings(port=0), urls) as url,
            httpx.AsyncClient(base_url=url, timeout=20) as http,
        ):
            portrait, viewer = await _watched(http, url)
            replicas[viewer.session_id.partition(".")[0]][1].kill()
            assert await _resumed(http, viewer, portrait) <= 2.0


def test_a_replica_whose_actor_is_gone_ends() -> None:
    with processes() as replicas:
        _, process = replicas[NAMES[0]]
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) in (0, -signal.SIGTERM)


async def _watched(http: httpx.AsyncClient, url: str) -> tuple[str, Viewer]:
    """A viewer of an enrolled portrait, once the ingress knows of its session."""
    added = await http.post(
        "/api/portraits", content=encoded(photo()), headers={"Content-Type": "image/png"}
    )
    portrait = added.json()["id"]
    viewer = Viewer(url, portrait=portrait)
    await viewer.connect()
    await until(lambda: viewer.report.first_frame_s is not None, 15)
    await asyncio.sleep(0.6)  # two reports
    return portrait, viewer


async def _resumed(http: httpx.AsyncClient, viewer: Viewer, portrait: str) -> float:
    """Come back with the viewer's token; returns the seconds until its first picture."""
    began, again = time.monotonic(), Viewer(viewer.url, resume=viewer.token)
    await again.connect()
    await until(lambda: again.report.first_frame_s is not None, 15)
    took = time.monotonic() - began
    assert again.session_id == viewer.session_id
    shown = (await http.get(f"/api/sessions/{again.session_id}")).json()
    assert shown["portrait_id"] == portrait
    await viewer.close()
    await again.close()
    return took


@pytest.fixture
def ray_cluster(tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Three fake servers that Ray Serve keeps running."""
    pytest.importorskip("ray.serve", reason="the extra ray is not installed")
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "tests.server.fake_cluster", "--port", str(port)]
    environment = {**os.environ, "PORTRAITTALK__CAPACITY": "4"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        while "http://localhost" not in log.read_text():
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()


def _server_of(parent: psutil.Process) -> psutil.Process:
    """The process of a replica that has a viewer: it alone has more than its one listening socket."""
    servers = [
        each
        for each in parent.children(recursive=True)
        if "tests.server.fake_server" in each.cmdline()
    ]
    return max(servers, key=lambda each: len(each.net_connections("udp")))


@pytest.mark.slow  # Ray takes its time to start
@pytest.mark.timeout(400)
async def test_ray_serve_keeps_three_replicas_running(
    ray_cluster: tuple[str, psutil.Process],
) -> None:
    url, parent = ray_cluster
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        portrait, viewer = await _watched(http, url)
        _server_of(parent).kill()
        assert await _resumed(http, viewer, portrait) <= 2.0
        replicas = 2
        while replicas < 3:  # Serve starts another one
            await asyncio.sleep(0.1)
            replicas = (await http.get("/readyz")).json()["replicas"]
