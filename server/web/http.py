"""What every route needs: bodies read and checked, the service found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from server.errors import ApiError
from server.live.session import Session
from server.logs import session_id
from server.sending.senders import Kind, Sender
from server.service import AvatarService
from server.web.routes import Operation, Terms

MAX_JSON_BYTES = 256 * 1024
Body = TypeVar("Body", bound=BaseModel)


def service_of(connection: HTTPConnection) -> AvatarService:
    """The service behind a request or WebSocket."""
    service: AvatarService = connection.app.state.service
    return service


def session_of(connection: HTTPConnection) -> Session:
    """The open session that the path names as `{id}`; raises `ApiError` unknown_session."""
    session = service_of(connection).find_session(connection.path_params["id"])
    session_id.set(session.id)
    return session


def address_of(connection: HTTPConnection) -> str:
    """The network address that asks."""
    return connection.client.host if connection.client else ""


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
    return check(await read_raw(request), kind)


async def read_raw(request: Request) -> object:
    """Read a JSON body, whatever it holds; raises `ApiError` unsupported_type or bad_json."""
    check_type(request, lambda kind: kind == "application/json", "application/json")
    try:
        return json.loads(await read_body(request, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        raise ApiError(400, "bad_json", "the body is not JSON") from None


def check(raw: object, kind: type[Body]) -> Body:
    """Check a parsed JSON value; raises `ApiError` bad_request."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise unfit(error) from None


def unfit(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a message, in words."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "body"
    return ApiError(422, "bad_request", f"{where[:100]}: {first['msg'][:300]}")


async def first_of(*parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts of a connection side by side until one ends; the others are cancelled.

    Raises:
        Exception: whatever the part that ended raised.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sending(sender: Sender) -> Response:
    """The answer that a sender began: its Location is what ends it."""
    where = f"/api/sessions/{sender.session.id}/{sender.kind}/{sender.id}"
    return JSONResponse({"id": sender.id, "target": sender.target}, 201, {"Location": where})


def sender_routes(
    kind: Kind, begin: Callable[[Request], Awaitable[Response]], body: type[BaseModel]
) -> list[BaseRoute]:
    """POST of a `body` begins a sender; DELETE ends one, or all of that kind."""

    async def end(request: Request) -> Response:
        """End one, or all; when it answers, everything is sent."""
        service, session = service_of(request), session_of(request)
        await service.senders.stop(session, kind, request.path_params.get("sender"))
        return Response(status_code=204)

    path = f"/api/sessions/{{id}}/{kind}"
    return [
        Operation(path, begin, "control", POST=Terms({201: ("id", "target")}, body)),
        Operation(path, end, "control", DELETE=Terms({204: None})),
        Operation(path + "/{sender}", end, "control", DELETE=Terms({204: None})),
    ]
