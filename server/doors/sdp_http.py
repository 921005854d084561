"""What WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) have in common: SDP over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from server.errors import ApiError
from server.resources import Resource
from server.trust.access import grant_of
from server.web.http import check_type, read_body, service_of, session_of
from server.web.routes import Terms
from server.webrtc.ice import IceServer, ice_servers
from server.webrtc.signaling import BadSdp
from server.webrtc.trickle import read_fragment, trickle

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
MAX_SDP_BYTES = 64 * 1024
OFFERS = {"GET": Terms({204: None}), "POST": Terms({201: SDP}, SDP)}
CONNECTION = {
    "GET": Terms({204: None}),
    "PATCH": Terms({204: None}, FRAGMENT),
    "DELETE": Terms({200: None}),
}


@contextmanager
def unprocessable() -> Iterator[None]:
    """An SDP that cannot be used is answered 422: some players take 400 for a wish to offer first."""
    try:
        yield
    except BadSdp as error:
        raise ApiError(422, "bad_sdp", str(error)) from None


async def read_sdp(request: Request, kind: str) -> str:
    """Read a body of that type; raises `ApiError` unsupported_type, too_large or bad_sdp."""
    check_type(request, lambda given: given == kind, kind)
    with unprocessable():
        try:
            return (await read_body(request, MAX_SDP_BYTES)).decode()
        except UnicodeDecodeError:
            raise BadSdp("the body is no UTF-8") from None


async def read_offer(request: Request) -> str:
    """Read an offer whose sender takes an answer; raises `ApiError`, not_acceptable among them."""
    ranges = [
        part.partition(";")[0].strip() for part in request.headers.get("Accept", "").split(",")
    ]
    if not {"", "*/*", "application/*", SDP} & {each.lower() for each in ranges}:
        raise ApiError(406, "not_acceptable", f"the answer is {SDP}, which Accept leaves out")
    return await read_sdp(request, SDP)


def created(request: Request, path: str, resource: Resource, answer: str, *links: str) -> Response:
    """201 with the answer; `path` is that of the endpoint, below which the resource is."""
    settings, subject = service_of(request).settings, grant_of(request).subject
    servers = ice_servers(settings, subject, time.time())
    links = (*map(_ice_link, servers), *links)
    headers = {
        "Location": f"{request.scope.get('root_path', '')}{path}/{resource.id}",
        "ETag": resource.etag,
        "Accept-Patch": FRAGMENT,
    }
    if links:
        headers["Link"] = ", ".join(links)
    return Response(answer, 201, headers, media_type=SDP)


def _ice_link(server: IceServer) -> str:
    """A server as RFC 9725 hands it on (section 4.6)."""
    link = f'<{server["urls"]}>; rel="ice-server"'
    if "username" not in server:
        return link
    about = f'username="{server["username"]}"; credential="{server["credential"]}"'
    return f'{link}; {about}; credential-type="password"'


class Offers(HTTPEndpoint):
    """Where offers are posted; nothing is to be read there."""

    async def get(self, request: Request) -> Response:
        """Nothing, successfully, as the RFC wants it; raises `ApiError` unknown_session."""
        if "id" in request.path_params:
            session_of(request)
        return Response(status_code=204)

    async def options(self, request: Request) -> Response:
        """What may be posted."""
        return Response(headers={"Allow": ", ".join(self._allowed_methods), "Accept-Post": SDP})


class Connection(HTTPEndpoint):
    """One connection: `{id}` is its session, `{connection}` its own name."""

    async def get(self, request: Request) -> Response:
        """Nothing, if it is there."""
        self._resource(request)
        return Response(status_code=204)

    async def options(self, request: Request) -> Response:
        """What may be done."""
        allowed = ", ".join(self._allowed_methods)
        return Response(headers={"Allow": allowed, "Accept-Post": SDP, "Accept-Patch": FRAGMENT})

    async def patch(self, request: Request) -> Response:
        """Candidates that were found later."""
        resource = self._resource(request)
        body = await read_sdp(request, FRAGMENT)
        with unprocessable():
            fragment = read_fragment(body)
        resource.check_match(request.headers.get("If-Match"), fragment.ufrag)
        await trickle(resource.viewer.pc, fragment)
        return Response(status_code=204)

    async def delete(self, request: Request) -> Response:
        """Hang up."""
        names = request.path_params
        await service_of(request).resources.end(names["id"], names["connection"])
        return Response(status_code=200)

    def _resource(self, request: Request) -> Resource:
        names = request.path_params
        return service_of(request).resources.find(names["id"], names["connection"])
