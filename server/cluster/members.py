"""The replicas that the ingress knows, and where each session is."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp

from server.cluster.placement import Load, choose
from server.errors import ApiError
from server.live.names import CLIENT_HEADER, SECRET_HEADER, replica_of

LOOK_S = 0.25  # between two reports of a replica
SILENT_S = 1.0  # a replica that reports nothing for so long is gone
REMEMBERED = 4096  # sessions
PORTRAIT_BYTES = 128 * 1024 * 1024  # of all uploads together
LOST = (aiohttp.ClientConnectionError, ConnectionError, TimeoutError)
Find = Callable[[], Awaitable[dict[str, str]]]  # addresses of replicas by name


class Members:
    """Replicas, their load, their sessions and the portraits that all of them are given.

    Bound: 4096 sessions, 128 MiB of uploads. Overflow: the oldest are forgotten; a session then cannot
    come back on another replica, a portrait is known where it was enrolled.

    Args:
        find: asks for the addresses of all replicas that ever said theirs.
    """

    def __init__(self, http: aiohttp.ClientSession, secret: str, find: Find) -> None:
        self.http, self.secret, self._find = http, secret, find
        self.urls: dict[str, str] = {}
        self.loads: dict[str, Load] = {}  # of those that answer
        self._where: OrderedDict[str, tuple[str, dict[str, Any]]] = OrderedDict()  # and its state
        self._uploads: OrderedDict[str, tuple[bytes, dict[str, str]]] = OrderedDict()
        self._placed: defaultdict[str, dict[object, float]] = defaultdict(dict)  # when it was made
        self._moving, self._giving = asyncio.Lock(), asyncio.Lock()

    async def watch(self) -> None:
        """Ask all replicas how they are, for ever."""
        while True:
            self.urls = dict(await self._find())
            await asyncio.gather(*(self._look(name) for name in self.urls))
            await asyncio.sleep(LOOK_S)

    async def _look(self, name: str) -> None:
        began = time.monotonic()
        try:
            answer = await self.ask(name, "GET", "/cluster/report", limit_s=SILENT_S)
        except (aiohttp.ClientError, ApiError, TimeoutError):
            self.gone(name)
            return
        sessions = {each["id"]: each for each in answer["sessions"]}
        placed = self._placed[name] = {k: at for k, at in self._placed[name].items() if at > began}
        self.loads[name] = Load(
            answer["places"], len(sessions), answer["step_ms"], answer["draining"], len(placed)
        )
        for known, (where, _) in list(self._where.items()):
            if where == name and known not in sessions:
                del self._where[known]
        for known, state in sessions.items():
            self._where[known] = (name, state)
        while len(self._where) > REMEMBERED:
            self._where.popitem(last=False)

    def gone(self, name: str) -> None:
        """It does not answer: nobody is sent there until it does again."""
        self.loads.pop(name, None)

    @contextlib.contextmanager
    def placing(self, name: str) -> Iterator[None]:
        """Inside the block a session is made there: it counts until a report that was asked for later."""
        mark = object()
        self._placed[name][mark] = math.inf
        if name in self.loads:
            self.loads[name].sent += 1
        try:
            yield
        finally:
            self._placed[name][mark] = time.monotonic()

    def headers(self, address: str = "") -> dict[str, str]:
        """Those that open a replica's door, for who asks from `address`."""
        return {SECRET_HEADER: self.secret, CLIENT_HEADER: address}

    async def ask(
        self, name: str, method: str, path: str, limit_s: float = 5.0, **more: Any
    ) -> Any:
        """Ask a replica something of the ingress's own; returns the JSON that it answers, if any.

        Raises:
            ApiError: it refuses, with its status.
            aiohttp.ClientError, TimeoutError: it does not answer.
        """
        timeout = aiohttp.ClientTimeout(total=limit_s)
        url, headers = self.urls[name] + path, self.headers()
        async with self.http.request(method, url, headers=headers, timeout=timeout, **more) as got:
            if got.status >= 400:
                raise ApiError(got.status, "replica_refused", (await got.text())[:300])
            return await got.json() if got.status == 200 else None

    def place(self) -> str:
        """The replica of one more session, or of what any may answer; raises `ApiError` no_replica."""
        name = choose(self.loads.items())
        if name is None:
            said = "no server is ready at the moment; try again"
            raise ApiError(503, "no_replica", said, {"Retry-After": "1"})
        return name

    async def locate(self, session_id: str) -> str:
        """The replica that has this session: a new one, where it is made again, if its own is gone.

        Raises:
            ApiError: no_replica; of what nobody knows any replica may say so.
        """
        where = self._home(session_id)
        if where in self.loads:
            return where
        async with self._moving:
            where = self._home(session_id)
            if where in self.loads or session_id not in self._where:
                return where if where in self.loads else self.place()
            state, name = self._where[session_id][1], self.place()
            await self.share_with(name, state["portrait_id"])
            await self.ask(name, "POST", "/cluster/sessions", json=state)
            self._where[session_id] = (name, state)
            return name

    def _home(self, session_id: str) -> str:
        known = self._where.get(session_id)
        return known[0] if known else replica_of(session_id)

    async def enrolled(self, portrait_id: str, name: str, data: bytes, face: str | None) -> None:
        """Keep an upload that `name` has enrolled, and give it to all others."""
        about = await self.ask(name, "GET", f"/cluster/portraits/{portrait_id}")
        self._uploads[portrait_id] = (data, {**about, **({"face": face} if face else {})})
        while sum(len(each) for each, _ in self._uploads.values()) > PORTRAIT_BYTES:
            self._uploads.popitem(last=False)
        for other in list(self.loads):
            if other != name:
                with contextlib.suppress(aiohttp.ClientError, ApiError, TimeoutError):
                    await self.share_with(other, portrait_id)

    async def deleted(self, portrait_id: str, name: str) -> None:
        """An upload was deleted at `name`: it goes everywhere."""
        self._uploads.pop(portrait_id, None)
        for other in list(self.loads):
            if other != name:
                with contextlib.suppress(aiohttp.ClientError, ApiError, TimeoutError):
                    await self.ask(other, "DELETE", f"/cluster/portraits/{portrait_id}")

    async def share_with(self, name: str, portrait_id: str) -> None:
        """Give a replica a portrait, if it has it not; whatever hinders it is told by its use."""
        if portrait_id not in self._uploads:
            return
        data, query = self._uploads[portrait_id]
        path = f"/cluster/portraits/{portrait_id}"
        async with self._giving:
            try:
                await self.ask(name, "GET", path)
            except ApiError:
                with contextlib.suppress(ApiError):
                    await self.ask(name, "PUT", path, limit_s=30.0, params=query, data=data)

    def now(self) -> dict[str, Any]:
        """The whole, in numbers."""
        open_ones = [load for load in self.loads.values() if not load.draining]
        return {
            "replicas": len(open_ones),
            "sessions": sum(load.sessions for load in self.loads.values()),
            "places": sum(load.places for load in open_ones),
        }
