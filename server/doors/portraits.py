"""Portraits over HTTP: enrol one with the consent of who it shows, look at it, delete both."""

from __future__ import annotations

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from server.consents import Consent, ConsentGiven
from server.errors import ApiError
from server.portraits import DEFAULT_ID, Portrait
from server.trust.access import grant_of
from server.web.http import check_type, read_body, service_of, unfit
from server.web.routes import Operation, Terms

HEADER = "Consent"


def _is_picture(kind: str) -> bool:
    return kind.startswith("image/") or kind == "application/octet-stream"


async def listed(request: Request) -> Response:
    """The portraits everybody may see."""
    rows = [
        {"id": p.id, "name": p.name, "width": p.width, "height": p.height}
        for p in service_of(request).portraits.listed()
    ]
    return JSONResponse({"portraits": rows})


async def image(request: Request) -> Response:
    """A portrait as JPEG."""
    return Response(_asked_for(request).jpeg, media_type="image/jpeg")


async def enrol(request: Request) -> Response:
    """Enrol an uploaded image; who it shows has to agree, which the header `Consent` says.

    The header is a JSON object, percent-encoded where it is not ASCII: {"who", "purpose", "when"}, the
    last an ISO 8601 time, now if it is left out. Without tokens it may be left out.
    """
    check_type(request, _is_picture, "image/jpeg")
    service, grant = service_of(request), grant_of(request)
    face = _face(request.query_params.get("face"))
    given = _given(request, needed=service.gate.closed)
    consent = None if given is None else Consent.of(given, grant.subject, grant.token)
    data = await read_body(request, service.settings.max_upload_bytes)
    portrait = await service.enroller.enroll(data, grant.subject, face, consent)
    answer = portrait.answer()
    if consent is not None:
        answer["consent_id"] = consent.id
    return JSONResponse(answer, 201)


async def delete(request: Request) -> Response:
    """Delete a portrait of one's own with its consent record; sessions that show it end."""
    service, portrait = service_of(request), _asked_for(request)
    if portrait.id == DEFAULT_ID:
        raise ApiError(403, "forbidden", "the bundled portrait stays")
    await service.delete_portrait(portrait)
    return Response(status_code=204)


async def consent(request: Request) -> Response:
    """The consent record of a portrait of one's own."""
    portrait = _asked_for(request)
    if portrait.consent is None:
        raise ApiError(404, "no_consent", "nothing is recorded for this portrait")
    return JSONResponse(portrait.consent.answer(portrait.id))


async def consents(request: Request) -> Response:
    """Every consent record of one's own portraits."""
    own = service_of(request).portraits.of(grant_of(request).subject)
    return JSONResponse(
        {"consents": [p.consent.answer(p.id) for p in own if p.consent is not None]}
    )


def _asked_for(request: Request) -> Portrait:
    """The portrait that the path names; raises `ApiError` unknown_portrait."""
    return service_of(request).find_portrait(request.path_params["id"], grant_of(request).subject)


def _given(request: Request, *, needed: bool) -> ConsentGiven | None:
    """What the header says; raises `ApiError` consent_required or bad_consent."""
    header = request.headers.get(HEADER)
    if header is None:
        if needed:
            said = 'say who agreed, and to what: Consent: {"who": "their name", "purpose": "..."}'
            raise ApiError(403, "consent_required", said)
        return None
    try:
        return ConsentGiven.read(header)
    except ValidationError as error:
        raise ApiError(422, "bad_consent", f"Consent: {unfit(error)}") from None
    except ValueError as error:
        raise ApiError(422, "bad_consent", f"Consent: {error}") from None


def _face(asked: str | None) -> int | None:
    """The number of a face, counted from the left; raises `ApiError` bad_request."""
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdecimal() and 1 <= int(asked[:4]) <= 100):
        raise ApiError(422, "bad_request", f"face={asked[:20]!r} is no number of a face; from 1")
    return int(asked)


_ADDED = ("id", "width", "height")
_RECORD = ("id", "who", "purpose", "when", "recorded", "subject", "token", "portrait_id")
_ENROLS = Terms({201: _ADDED}, "image/*", names=("face",), headers=(HEADER,))
_PORTRAIT = "/api/portraits/{id}"
ROUTES: list[BaseRoute] = [
    Operation("/api/portraits", listed, "view", GET=Terms({200: ("portraits",)})),
    Operation("/api/portraits", enrol, "portraits", POST=_ENROLS),
    Operation(_PORTRAIT, delete, "portraits", DELETE=Terms({204: None})),
    Operation(_PORTRAIT + "/image", image, "view", GET=Terms({200: "image/jpeg"})),
    Operation(_PORTRAIT + "/consent", consent, "portraits", GET=Terms({200: _RECORD})),
    Operation("/api/consents", consents, "portraits", GET=Terms({200: ("consents",)})),
]
