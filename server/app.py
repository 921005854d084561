"""The HTTP routes. A route translates; it holds no logic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketState

from engine.errors import AvatarError
from engine.motion.expression import WORDS
from engine.types import Engine, RgbImage
from server.cluster import inside
from server.doors import DOORS
from server.doors.camera import CallDevices, in_call
from server.errors import ApiError, refusal
from server.live.spans import exporting
from server.queues import waiting
from server.service import AvatarService
from server.settings import ServerSettings
from server.trust.access import grant_of
from server.web.guard import guards
from server.web.http import service_of
from server.web.openapi import describe
from server.web.routes import Operation, Terms
from server.webrtc.ice import ice_servers

REFUSED, INTERNAL = 1008, 1011  # why a WebSocket is closed
_HERE = Path(__file__).parent


def page_folder() -> Path:
    """The page's files: inside a wheel `server/page`, else the checkout's own."""
    packaged = _HERE / "page"
    return packaged if packaged.is_dir() else _HERE.parent / "client_example" / "page"


def app_version() -> str:
    """The installed version, or that of a bare checkout."""
    try:
        return version("portraittalk")
    except PackageNotFoundError:
        return "0+checkout"


async def index(request: Request) -> Response:
    """The page."""
    path = page_folder() / "index.html"
    if not path.is_file():
        raise ApiError(404, "no_page", "the page is not installed")
    return FileResponse(path)


async def embed(request: Request) -> Response:
    """The avatar as a web component, for any page: a module beside the page's own."""
    path = page_folder().parent / "embed.js"
    if not path.is_file():
        raise ApiError(404, "no_page", "the page is not installed")
    return FileResponse(path, media_type="text/javascript")


async def healthz(request: Request) -> Response:
    """Whether the engine threads live."""
    service = service_of(request)
    status = 200 if service.worker.alive else 503
    word = "ok" if status == 200 else "engine stopped"
    return JSONResponse({"status": word, "sessions": len(service.sessions)}, status)


async def readyz(request: Request) -> Response:
    """Whether new sessions are taken: not while the server stops."""
    service = service_of(request)
    ready = service.worker.alive and not service.sessions.draining
    status = "ready" if ready else "stopping"
    body = {"status": status, "sessions": len(service.sessions)}
    return JSONResponse(body, 200 if ready else 503)


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    service = service_of(request)
    worker = service.worker
    service.metrics.streams_a_step.set(worker.stepped / max(1, worker.steps))
    for queue, length in waiting(service).items():
        service.metrics.waiting.labels(queue=queue).set(length)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def config(request: Request) -> Response:
    """What a client must know before it connects."""
    service = service_of(request)
    stream = service.worker.engine.config.stream
    return JSONResponse(
        {
            "fps": stream.fps,
            "lookahead_ms": round(stream.lookahead_frames * stream.frame_ms),
            "max_sessions": service.sessions.max_sessions,
            "version": app_version(),
            "profile": service.worker.engine.config.profile,
            "speech": service.worker.engine.config.speech,
            "expressions": list(WORDS),
            "ice_servers": ice_servers(service.settings, grant_of(request).subject, time.time()),
            "consent_required": service.gate.closed,
            "disclosure": service.settings.disclosed,
        }
    )


async def ice(request: Request) -> Response:
    """STUN and TURN servers, with passwords that last a day."""
    servers = ice_servers(service_of(request).settings, grant_of(request).subject, time.time())
    return JSONResponse({"ice_servers": servers}, headers={"Cache-Control": "no-store"})


async def test_events(request: Request) -> Response:
    """Test mode: the time of each leg of each beep."""
    service = service_of(request)
    if service.beeps is None:
        raise ApiError(404, "not_found", "the server was not started with --frame-code")
    return JSONResponse({"events": service.beeps.events()})


async def test_frames(request: Request) -> Response:
    """Test mode: what each frame showed."""
    frames = service_of(request).frames
    if frames is None:
        raise ApiError(404, "not_found", "the server was not started with --frame-code")
    return JSONResponse({"frames": frames.rows()})


async def openapi(request: Request) -> Response:
    """This description."""
    return JSONResponse(
        describe(request.app.routes, app_version(), secured=service_of(request).gate.closed)
    )


_HEALTH = ("status", "sessions")
_CONFIG = (
    "fps",
    "lookahead_ms",
    "max_sessions",
    "version",
    "profile",
    "speech",
    "expressions",
    "consent_required",
    "disclosure",
)
_ROUTES = [
    Operation("/", index, None, GET=Terms({200: "text/html"})),
    Operation("/embed.js", embed, None, GET=Terms({200: "text/javascript"})),
    Operation("/openapi.json", openapi, None, GET=Terms({200: ("openapi", "paths")})),
    Operation("/healthz", healthz, None, GET=Terms({200: _HEALTH, 503: _HEALTH})),
    Operation("/readyz", readyz, None, GET=Terms({200: _HEALTH, 503: _HEALTH})),
    Operation("/metrics", metrics, "control", GET=Terms({200: "text/plain"})),
    Operation("/api/config", config, "view", GET=Terms({200: _CONFIG})),
    Operation("/api/ice-servers", ice, "view", GET=Terms({200: ("ice_servers",)})),
    Operation("/api/test/events", test_events, "control", GET=Terms({200: ("events",)})),
    Operation("/api/test/frames", test_frames, "control", GET=Terms({200: ("frames",)})),
]


async def _refuse(request: HTTPConnection, error: Exception) -> Response | None:
    """Answer any error of ours, or of the router, as JSON; an open socket is told and closed."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    api = refusal(error)
    answer = refuse(request, api)
    if isinstance(request, WebSocket) and request.application_state is WebSocketState.CONNECTED:
        await request.send_json({"type": "error", "code": api.code, "message": str(api)})
        await request.close(INTERNAL if api.status >= 500 else REFUSED)
        return None
    return answer


def refuse(request: HTTPConnection, api: ApiError) -> Response:
    """Answer a refusal as JSON, and count it."""
    service_of(request).metrics.refused.labels(code=api.code).inc()
    return JSONResponse(
        {"error": {"code": api.code, "message": str(api)}}, api.status, headers=api.headers
    )


def _replica(settings: ServerSettings) -> list[Middleware]:
    secret = settings.cluster_secret
    return [Middleware(inside.FromIngress, secret=secret)] if secret else []


def create_app(engine: Engine, settings: ServerSettings, default: RgbImage, name: str) -> Starlette:
    """Make the application around a loaded engine; `default` (H, W, 3) is the bundled portrait."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = app.state.service = AvatarService(engine, settings)
        try:
            await service.start(default, name)
            async with AsyncExitStack() as stack:
                if settings.telemetry:
                    service.followers.append(stack.enter_context(exporting(app_version())).follow)
                if settings.camera:
                    await stack.enter_async_context(in_call(service, CallDevices.chosen(settings)))
                yield
        finally:
            await asyncio.shield(service.stop())

    handlers: dict[Any, Any] = dict.fromkeys(
        (AvatarError, HTTPException, ClientDisconnect, Exception), _refuse
    )
    return Starlette(
        routes=[
            *_ROUTES,
            *(route for door in DOORS for route in door.ROUTES),
            *(inside.ROUTES if settings.replica else ()),
            Mount("/page", StaticFiles(directory=page_folder(), check_dir=False)),
        ],
        lifespan=lifespan,
        exception_handlers=handlers,
        middleware=[*_replica(settings), *guards(settings, refuse)],
    )
