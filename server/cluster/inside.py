"""What a replica does for the ingress: says how it is, takes portraits and sessions of others.

Nobody else is let in: every request must have the cluster's secret.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict

from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.consents import Consent
from server.errors import ApiError
from server.live.line import Voice
from server.live.names import CLIENT_HEADER, SECRET_HEADER
from server.live.surroundings import SessionOptions
from server.web.http import read_body, read_json, service_of

ASKING = ("http", "websocket")


class SessionBody(BaseModel):
    """A session as it goes on elsewhere."""

    id: str = Field(max_length=100)
    portrait_id: str = Field(max_length=100)
    prompt: str
    voice: Voice
    subject: str


class FromIngress:
    """Lets in who has the secret, as the address that the ingress names."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app, self._secret = app, secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in ASKING:
            headers = Headers(scope=scope)
            given = headers.get(SECRET_HEADER, "").encode()
            if not hmac.compare_digest(given, self._secret):
                refused = Response("this replica is reached by its ingress alone", 403)
                await refused(scope, receive, send)
                return
            scope["client"] = (headers.get(CLIENT_HEADER, ""), 0)
        await self._app(scope, receive, send)


async def report(request: Request) -> Response:
    """Places, sessions, the engine's step: what placement and a later rescue need."""
    service = service_of(request)
    cost = service.capacity.cost
    sessions = [
        {
            "id": session.id,
            "portrait_id": session.portrait_id,
            "prompt": session.prompt,
            "voice": session.line.voice,
            "subject": session.subject,
        }
        for session in service.sessions
    ]
    return JSONResponse(
        {
            "places": service.sessions.max_sessions,
            "live": service.sessions.live,
            "step_ms": 0.0 if cost is None else 1000 * cost.full_s,
            "draining": service.sessions.draining or not service.worker.alive,
            "sessions": sessions,
        }
    )


async def take_session(request: Request) -> Response:
    """Go on with a session whose replica is gone; its viewer is about to come with its token."""
    body, service = await read_json(request, SessionBody), service_of(request)
    if service.sessions.get(body.id) is None:
        options = SessionOptions(
            portrait_id=body.portrait_id,
            prompt=body.prompt,
            voice=body.voice,
            expires_s=service.settings.resume_s,
            subject=body.subject,
            session_id=body.id,
        )
        await service.open_session(options, address=body.id)
    return Response(status_code=204)


async def has_portrait(request: Request) -> Response:
    """Whose portrait this is, if it is known here."""
    found = service_of(request).portraits.look_up(request.path_params["id"])
    if found is None:
        raise ApiError(404, "unknown_portrait", "this portrait is not known here")
    about = {"owner": found.owner}
    if found.consent is not None:
        about["consent"] = json.dumps(asdict(found.consent))
    return JSONResponse(about)


async def take_portrait(request: Request) -> Response:
    """Enrol what another replica has enrolled, under the same id and for the same subject."""
    service, query = service_of(request), request.query_params
    data = await read_body(request, service.settings.max_upload_bytes)
    face = int(query["face"]) if "face" in query else None
    consent = Consent(**json.loads(query["consent"])) if "consent" in query else None
    owner, known = query.get("owner", ""), request.path_params["id"]
    await service.enroller.enroll(data, owner, face, consent, known)
    return Response(status_code=204)


async def drop_portrait(request: Request) -> Response:
    """Forget what was deleted at another replica; what is not known here is no error."""
    service = service_of(request)
    found = service.portraits.look_up(request.path_params["id"])
    if found is not None:
        await service.delete_portrait(found)
    return Response(status_code=204)


ROUTES = [
    Route("/cluster/report", report),
    Route("/cluster/sessions", take_session, methods=["POST"]),
    Route("/cluster/portraits/{id}", has_portrait),
    Route("/cluster/portraits/{id}", take_portrait, methods=["PUT"]),
    Route("/cluster/portraits/{id}", drop_portrait, methods=["DELETE"]),
]
