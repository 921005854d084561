"""WHEP: any number of players watch what one session shows, drawn once (draft-ietf-wish-whep).

POST /whep/{session id} with an offer that receives, of video, sound or both in any order; the answer
is 201. PATCH and DELETE go to the Location that it names.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from server.doors.one_way import watch
from server.doors.sdp_http import (
    CONNECTION,
    OFFERS,
    Connection,
    Offers,
    created,
    read_offer,
    unprocessable,
)
from server.web.http import address_of, service_of, session_of
from server.web.routes import Operation


class Watch(Offers):
    """One session to be watched."""

    async def post(self, request: Request) -> Response:
        """Answer a player's offer."""
        session = session_of(request)
        sdp = await read_offer(request)
        with unprocessable():
            resource, answer = await watch(service_of(request), session, sdp, address_of(request))
        return created(request, f"/whep/{session.id}", resource, answer)


ROUTES: list[BaseRoute] = [
    Operation("/whep/{id}", Watch, "view", **OFFERS),
    Operation("/whep/{id}/{connection}", Connection, "view", **CONNECTION),
]
