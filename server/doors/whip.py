"""WHIP: what a publisher sends is a session's microphone (RFC 9725).

POST /whip makes a session that lives as long as it is published to (query: `portrait_id`, `prompt`,
`voice`); POST /whip/{session id} is the microphone of one that is there. A video may be offered; it
is answered as inactive. The session's id is in the Location, its WHEP address in a Link.
"""

from __future__ import annotations

import dataclasses

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from engine.motion.expression import MAX_PROMPT
from server.doors.one_way import open_and_publish, publish
from server.doors.sdp_http import (
    CONNECTION,
    OFFERS,
    Connection,
    Offers,
    created,
    read_offer,
    unprocessable,
)
from server.live.line import Voice
from server.live.surroundings import SessionOptions
from server.resources import Resource
from server.trust.access import grant_of
from server.web.http import address_of, check, service_of, session_of
from server.web.routes import Operation


class Query(BaseModel):
    """What the address of POST /whip asks for."""

    portrait_id: str = Field("default", max_length=100)
    prompt: str = Field("", max_length=MAX_PROMPT)
    voice: Voice = "both"


class PublishAnew(Offers):
    """Makes sessions."""

    async def post(self, request: Request) -> Response:
        """Answer a publisher's offer with a session of its own."""
        query = check(dict(request.query_params), Query)
        options = SessionOptions(
            portrait_id=query.portrait_id,
            prompt=query.prompt,
            voice=query.voice,
            subject=grant_of(request).subject,
        )
        sdp = await read_offer(request)
        with unprocessable():
            service, address = service_of(request), address_of(request)
            resource, answer = await open_and_publish(service, options, sdp, address)
        return _published(request, resource, answer)


class Publish(Offers):
    """One session to be published to."""

    async def post(self, request: Request) -> Response:
        """Answer a publisher's offer."""
        session = session_of(request)
        sdp = await read_offer(request)
        with unprocessable():
            resource, answer = await publish(service_of(request), session, sdp, address_of(request))
        return _published(request, resource, answer)


def _published(request: Request, resource: Resource, answer: str) -> Response:
    session = resource.viewer.session.id
    watch = f'<{request.scope.get("root_path", "")}/whep/{session}>; rel="related"; title="WHEP"'
    return created(request, f"/whip/{session}", resource, answer, watch)


_ANEW = dataclasses.replace(OFFERS["POST"], query=Query)
ROUTES: list[BaseRoute] = [
    Operation("/whip", PublishAnew, "speak", GET=OFFERS["GET"], POST=_ANEW),
    Operation("/whip/{id}", Publish, "speak", **OFFERS),
    Operation("/whip/{id}/{connection}", Connection, "speak", **CONNECTION),
]
