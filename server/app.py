"""The HTTP routes. A route translates; it holds no logic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from engine.errors import AvatarError
from engine.motion.expression import MAX_PROMPT, WORDS
from engine.types import Engine, RgbImage
from server.errors import ApiError, refusal
from server.guard import guards
from server.service import AvatarService
from server.settings import ServerSettings
from server.signaling import add_candidate

MAX_JSON_BYTES = 256 * 1024
_HERE = Path(__file__).parent
Body = TypeVar("Body", bound=BaseModel)


class OfferBody(BaseModel):
    """POST /api/offer."""

    sdp: str
    type: Literal["offer"]
    portrait_id: str = Field("default", max_length=100)
    prompt: str = Field("", max_length=MAX_PROMPT)


class SessionBody(BaseModel):
    """PATCH /api/sessions/{id}."""

    prompt: str = Field(max_length=MAX_PROMPT)


class Candidate(BaseModel):
    """One ICE candidate, as a browser writes it."""

    candidate: str = Field(max_length=1000)
    sdpMid: str | None = None
    sdpMLineIndex: int | None = None


class CandidatesBody(BaseModel):
    """PATCH /api/offer."""

    session_id: str
    candidates: list[Candidate] = Field(max_length=100)


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


def check_type(request: Request, wanted: Callable[[str], bool], example: str) -> None:
    """Refuse a body of another type; raises `ApiError` unsupported_type.

    With no type, or that of a form, a browser would send it for any page without asking first.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not wanted(kind):
        said = f"the body is {kind[:100] or 'of no type'}; send it with Content-Type: {example}"
        raise ApiError(415, "unsupported_type", said)


async def read_body(request: Request, limit: int) -> bytes:
    """Read at most `limit` bytes; raises `ApiError` too_large without reading the rest."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise ApiError(413, "too_large", f"the request is larger than {limit} bytes")
    return bytes(body)


async def read_json(request: Request, kind: type[Body]) -> Body:
    """Read and check a JSON body; raises `ApiError` unsupported_type, bad_json or bad_request."""
    check_type(request, lambda kind: kind == "application/json", "application/json")
    try:
        raw = json.loads(await read_body(request, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        raise ApiError(400, "bad_json", "the body is not JSON") from None
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise ApiError(422, "bad_request", f"{where}: {first['msg']}") from None


def _is_picture(kind: str) -> bool:
    return kind.startswith("image/") or kind == "application/octet-stream"


def _service(request: Request) -> AvatarService:
    service: AvatarService = request.app.state.service
    return service


async def index(request: Request) -> Response:
    """The page."""
    path = page_folder() / "index.html"
    if not path.is_file():
        raise ApiError(404, "no_page", "the page is not installed")
    return FileResponse(path)


async def healthz(request: Request) -> Response:
    """Whether the engine thread lives."""
    service = _service(request)
    status = 200 if service.worker.alive else 503
    word = "ok" if status == 200 else "engine stopped"
    return JSONResponse({"status": word, "sessions": len(service.sessions)}, status)


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def config(request: Request) -> Response:
    """What a client must know before it connects."""
    service = _service(request)
    stream = service.worker.engine.config.stream
    return JSONResponse(
        {
            "fps": stream.fps,
            "lookahead_ms": round(stream.lookahead_frames * stream.frame_ms),
            "max_sessions": service.settings.max_sessions,
            "version": app_version(),
            "profile": service.worker.engine.config.profile,
            "expressions": list(WORDS),
            "ice_servers": [{"urls": url} for url in service.settings.ice_servers],
        }
    )


async def portraits(request: Request) -> Response:
    """The portraits everybody may see."""
    rows = [
        {"id": p.id, "name": p.name, "width": p.width, "height": p.height}
        for p in _service(request).portraits.listed()
    ]
    return JSONResponse({"portraits": rows})


async def portrait_image(request: Request) -> Response:
    """A portrait as JPEG."""
    portrait = _service(request).find_portrait(request.path_params["id"])
    return Response(portrait.jpeg, media_type="image/jpeg")


async def add_portrait(request: Request) -> Response:
    """Enrol an uploaded image."""
    check_type(request, _is_picture, "image/jpeg")
    service = _service(request)
    data = await read_body(request, service.settings.max_upload_bytes)
    portrait = await service.enroll(data)
    size = {"width": portrait.width, "height": portrait.height}
    return JSONResponse({"id": portrait.id, **size}, 201)


async def offer(request: Request) -> Response:
    """Open a session."""
    body = await read_json(request, OfferBody)
    session, sdp = await _service(request).open_session(body.sdp, body.portrait_id, body.prompt)
    return JSONResponse({"sdp": sdp, "type": "answer", "session_id": session.id})


async def candidates(request: Request) -> Response:
    """Trickled ICE candidates of an open session."""
    body = await read_json(request, CandidatesBody)
    session = _service(request).find_session(body.session_id)
    for each in body.candidates:
        await add_candidate(session.pc, each.candidate, each.sdpMid, each.sdpMLineIndex)
    return Response(status_code=204)


async def change_session(request: Request) -> Response:
    """Change the prompt of an open session, from its next frame on."""
    body = await read_json(request, SessionBody)
    service = _service(request)
    session = service.find_session(request.path_params["id"])
    return JSONResponse({"prompt": await service.set_prompt(session, body.prompt)})


async def close_session(request: Request) -> Response:
    """End a session; ending it again is no error."""
    session = _service(request).sessions.get(request.path_params["id"])
    if session is not None:  # closing twice is no mistake: a page that leaves does it
        await session.close()
    return Response(status_code=204)


async def test_events(request: Request) -> Response:
    """Test mode: the time of each leg of each beep."""
    service = _service(request)
    if service.beeps is None:
        raise ApiError(404, "not_found", "the server was not started with --frame-code")
    return JSONResponse({"events": service.beeps.events()})


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer any error of ours, or of the router, as JSON."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    return refuse(request, refusal(error))


def refuse(request: Request, api: ApiError) -> Response:
    """Answer a refusal as JSON, and count it."""
    _service(request).metrics.refused.labels(code=api.code).inc()
    return JSONResponse(
        {"error": {"code": api.code, "message": str(api)}}, api.status, headers=api.headers
    )


def create_app(engine: Engine, settings: ServerSettings, default: RgbImage, name: str) -> Starlette:
    """Make the application around a loaded engine; `default` (H, W, 3) is the bundled portrait."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = app.state.service = AvatarService(engine, settings)
        try:
            await service.start(default, name)
            yield
        finally:
            await asyncio.shield(service.stop())

    routes = [
        Route("/", index),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        Route("/api/config", config),
        Route("/api/portraits", portraits),
        Route("/api/portraits", add_portrait, methods=["POST"]),
        Route("/api/portraits/{id}/image", portrait_image),
        Route("/api/offer", offer, methods=["POST"]),
        Route("/api/offer", candidates, methods=["PATCH"]),
        Route("/api/sessions/{id}", change_session, methods=["PATCH"]),
        Route("/api/sessions/{id}", close_session, methods=["DELETE"]),
        Route("/api/test/events", test_events),
        Mount("/page", StaticFiles(directory=page_folder(), check_dir=False)),
    ]
    handlers: dict[Any, Any] = dict.fromkeys(
        (AvatarError, HTTPException, ClientDisconnect), _refuse
    )
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=handlers,
        middleware=guards(settings, refuse),
    )
