"""The one address of a cluster: each request goes to the replica that has its session.

Signalling alone passes through here; media goes from the browser straight to the replica, by the ICE
candidates of its answer. Tokens are looked at by the replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.errors import AvatarError
from server.cluster.members import LOST, Find, Members
from server.cluster.whole import merged
from server.errors import ApiError, refusal
from server.live.names import CLIENT_HEADER, SECRET_HEADER, session_named
from server.settings import ServerSettings
from server.web.guard import guards
from server.web.http import address_of, first_of, read_body

MAX_BODY = 16 * 1024 * 1024
TRIES = 3  # replicas that are tried, each when the one before turns out to be gone
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_MAKES = ("/api/offer", "/api/sessions", "/start", "/whip", "/v1/realtime", "/api/speech")
# Said of one connection alone (RFC 9110, section 7.6.1), or measured anew.
_HOP = {
    "connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "content-length",
    "proxy-authorization", "expect", "date", "server", SECRET_HEADER, CLIENT_HEADER,
}  # fmt: skip


def members_of(connection: HTTPConnection) -> Members:
    """The replicas behind a request or WebSocket."""
    members: Members = connection.app.state.members
    return members


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _HOP and not name.lower().startswith("sec-websocket-")
    }


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body) if body[:1] == b"{" else {}
    except (ValueError, RecursionError):
        return {}  # the replica says what is wrong with it
    return found if isinstance(found, dict) else {}


def _session_of(connection: HTTPConnection, body: dict[str, Any]) -> str | None:
    """The session that a request is about: by its path, its address or its body."""
    asked = [*connection.url.path.split("/"), connection.query_params.get("session_id")]
    asked += [body.get(name) for name in ("session_id", "resume", "pc_id")]
    return next((found for each in asked if (found := session_named(each))), None)


def _portrait_of(connection: HTTPConnection, body: dict[str, Any]) -> str:
    parts = connection.url.path.split("/")
    image = parts[3] if parts[1:3] == ["api", "portraits"] and len(parts) > 3 else ""
    named = body.get("portrait_id") or connection.query_params.get("portrait_id") or image
    return named if isinstance(named, str) else ""


async def _replica_for(connection: HTTPConnection, body: dict[str, Any]) -> str:
    """The replica to ask, which knows the portrait that is meant."""
    members, session = members_of(connection), _session_of(connection, body)
    name = members.place() if session is None else await members.locate(session)
    await members.share_with(name, _portrait_of(connection, body))
    return name


def _placing(
    connection: HTTPConnection, name: str, body: dict[str, Any]
) -> AbstractContextManager[None]:
    """Count what makes a session as one, until the replica itself does."""
    makes = connection.url.path in _MAKES and _session_of(connection, body) is None
    if makes and connection.scope.get("method", "POST") == "POST":
        return members_of(connection).placing(name)
    return contextlib.nullcontext()


async def forward(request: Request) -> Response:
    """Ask the replica, and answer what it answers."""
    body = await read_body(request, MAX_BODY)
    read = _json(body)
    for _ in range(TRIES):
        name = ""
        try:
            name = await _replica_for(request, read)
            with _placing(request, name, read):
                return await _forward_to(request, name, body)
        except LOST:
            members_of(request).gone(name)
    raise ApiError(503, "no_replica", "no server answers; try again", {"Retry-After": "1"})


async def _forward_to(request: Request, name: str, body: bytes) -> Response:
    members = members_of(request)
    headers = _passed(request.headers) | members.headers(address_of(request))
    url = members.urls[name] + request.url.path
    if request.url.query:
        url += f"?{request.url.query}"
    got = await members.http.request(
        request.method,
        aiohttp.client.URL(url, encoded=True),
        headers=headers,
        data=body or None,
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(total=None, connect=2.0),
    )
    shown = _passed(got.headers)
    if shown.get("Content-Type", "").startswith("text/event-stream"):
        end = BackgroundTask(got.release)
        return StreamingResponse(_pieces(got), got.status, shown, background=end)
    async with got:
        data = await got.read()
    if request.url.path == "/api/portraits" and got.status == 201:
        made, face = _json(data)["id"], request.query_params.get("face")
        sharing = asyncio.ensure_future(members.enrolled(made, name, body, face))
        request.app.state.sharing.add(sharing)
        sharing.add_done_callback(request.app.state.sharing.discard)
    path = request.url.path.split("/")
    if request.method == "DELETE" and path[1:3] == ["api", "portraits"] and got.status == 204:
        await members.deleted(path[3], name)
    answer = Response(data, got.status, shown)
    if request.method == "HEAD" and "Content-Length" in got.headers:
        answer.headers["Content-Length"] = got.headers["Content-Length"]
    return answer


async def _pieces(got: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    with contextlib.suppress(aiohttp.ClientError):  # a replica that is gone: the stream ends
        async for piece in got.content.iter_any():
            yield piece


async def forward_socket(socket: WebSocket) -> None:
    """Open a WebSocket at the replica, and hand on what comes from either side."""
    members = members_of(socket)
    for _ in range(TRIES):
        name = ""
        try:
            name = await _replica_for(socket, {})
            with _placing(socket, name, {}):
                upstream = await _open(socket, name)
            break
        except aiohttp.WSServerHandshakeError as error:
            said = f"the server refuses this WebSocket: {error.message}"
            await socket.send_denial_response(_refused(ApiError(error.status, "refused", said)))
            return
        except LOST:
            members.gone(name)
    else:
        raise ApiError(503, "no_replica", "no server answers; try again", {"Retry-After": "1"})
    async with upstream:
        await socket.accept(upstream.protocol)
        await first_of(_up(socket, upstream), _down(upstream, socket))


async def _open(socket: WebSocket, name: str) -> aiohttp.ClientWebSocketResponse:
    members = members_of(socket)
    query = f"?{socket.url.query}" if socket.url.query else ""
    return await members.http.ws_connect(
        aiohttp.client.URL(members.urls[name] + socket.url.path + query, encoded=True),
        protocols=socket.scope.get("subprotocols", ()),
        headers=_passed(socket.headers) | members.headers(address_of(socket)),
        max_msg_size=MAX_BODY,
        autoping=True,
    )


async def _up(socket: WebSocket, upstream: aiohttp.ClientWebSocketResponse) -> None:
    with contextlib.suppress(WebSocketDisconnect, ConnectionResetError):
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            if message.get("bytes") is not None:
                await upstream.send_bytes(message["bytes"])
            else:
                await upstream.send_str(message["text"])


async def _down(upstream: aiohttp.ClientWebSocketResponse, socket: WebSocket) -> None:
    said = ""
    while True:
        message = await upstream.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_text(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        else:
            said = message.extra if isinstance(message.extra, str) else ""
            break
    code = upstream.close_code or 1001
    await socket.close(1001 if code == 1006 else code, said)  # 1006 says that nobody said why


async def healthz(request: Request) -> Response:
    """Whether the ingress lives."""
    return JSONResponse({"status": "ok", **members_of(request).now()})


async def readyz(request: Request) -> Response:
    """Whether any replica takes new sessions."""
    now = members_of(request).now()
    ready = now["replicas"] > 0 and not request.app.state.draining
    status = "ready" if ready else "stopping" if request.app.state.draining else "no replica"
    return JSONResponse({"status": status, **now}, 200 if ready else 503)


async def metrics(request: Request) -> Response:
    """The metrics of all replicas, each with its label, and those of the cluster."""
    members, texts = members_of(request), {}
    headers = _passed(request.headers) | members.headers(address_of(request))
    for name in list(members.loads):
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with members.http.get(members.urls[name] + "/metrics", headers=headers) as got:
                if got.status != 200:
                    return Response(await got.read(), got.status, _passed(got.headers))
                texts[name] = await got.text()
    return Response(merged(texts, members.loads), media_type="text/plain; version=0.0.4")


def _refused(error: ApiError) -> Response:
    body = {"error": {"code": error.code, "message": str(error)}}
    return JSONResponse(body, error.status, headers=error.headers)


async def _refuse(request: HTTPConnection, error: Exception) -> Response:
    return (
        Response(status_code=400)
        if isinstance(error, ClientDisconnect)
        else _refused(refusal(error))
    )


def create_ingress(settings: ServerSettings, secret: str, find: Find) -> Starlette:
    """Make the application; `find` says where the replicas are."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.draining, app.state.sharing = False, set()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)  # less than the replica's
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as http:
            app.state.members = Members(http, secret, find)
            watching = asyncio.create_task(app.state.members.watch())
            try:
                yield
            finally:
                for task in (watching, *app.state.sharing):
                    task.cancel()
                await asyncio.gather(watching, *app.state.sharing, return_exceptions=True)

    handlers: dict[Any, Any] = dict.fromkeys(
        (AvatarError, HTTPException, ClientDisconnect, Exception), _refuse
    )
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/cluster/{rest:path}", _nothing),
            Route("/{path:path}", forward, methods=METHODS),
            WebSocketRoute("/{path:path}", forward_socket),
        ],
        lifespan=lifespan,
        exception_handlers=handlers,
        middleware=guards(settings, lambda request, error: _refused(error)),
    )


async def _nothing(request: Request) -> Response:
    raise ApiError(404, "not_found", "Not Found")
