"""Who may ask: the host names we answer to, and the web pages that may post to us.

A browser lets any page of the web send requests to a server on the visitor's own machine. Three
checks keep such a page out: the `Host` header (a foreign name that was made to lead here), the
`Origin` header of what changes something, and, in `server.app`, the type of a body, without which a
browser would not ask first. A client that is no browser sends no `Origin` and is let in.

Tokens are looked at by the routes themselves: `server.trust.access`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ApiError
from server.settings import ServerSettings
from server.web.uploads import UploadLimits

EVERYWHERE = ("0.0.0.0", "::")
ASKING = ("http", "websocket")
READING = ("GET", "HEAD", "OPTIONS")
Refuse = Callable[[HTTPConnection, ApiError], Response]


def guards(settings: ServerSettings, refuse: Refuse) -> list[Middleware]:
    """The checks in their order; `refuse` turns an error of ours into an answer."""
    found = [Middleware(HostCheck, settings=settings, refuse=refuse)]
    if settings.allow_origin:
        found.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.allow_origin,
                allow_methods=("GET", "POST", "PATCH", "DELETE"),
                allow_headers=("Authorization", "Consent", "Content-Type", "If-Match"),
                expose_headers=("ETag", "Link", "Location", "Retry-After", "WWW-Authenticate"),
                allow_private_network=True,
            )
        )
    found.append(Middleware(OriginCheck, settings=settings, refuse=refuse))
    found.append(Middleware(UploadLimits))
    return found


def trusted_hosts(settings: ServerSettings) -> list[str]:
    """Names in a `Host` header that are answered: our address, this machine, and those allowed."""
    own = [_bracketed(settings.host)]
    if settings.host in EVERYWHERE:
        own = [socket.gethostname(), f"{socket.gethostname()}.local"]
    return ["localhost", "127.0.0.1", "[::1]", *own, *map(_bracketed, settings.allow_host)]


def _bracketed(host: str) -> str:
    """A host as a `Host` header writes it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_address(host_header: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(f"//{host_header}").hostname or "")
    except ValueError:
        return False
    return True


def _host_of(origin: str) -> str | None:
    """The host and port of an origin; None for `null` and noise."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


class HostCheck:
    """Refuses a foreign `Host`, by Starlette's own check.

    A server that listens on every network is also reached by any of the machine's addresses. Those
    are safe: only a name can be made to lead somewhere else.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._hosts = trusted_hosts(settings)
        self._any_address = settings.host in EVERYWHERE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in ASKING or await self._trusted(scope, receive):
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")[:100]
        said = f"this server does not answer to {host!r}; start it with --allow-host NAME"
        answer = self._refuse(HTTPConnection(scope), ApiError(400, "unknown_host", said))
        await answer(scope, receive, send)

    async def _trusted(self, scope: Scope, receive: Receive) -> bool:
        if self._any_address and _is_address(Headers(scope=scope).get("host", "")):
            return True
        passed = []

        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            passed.append(True)

        async def drop(message: Message) -> None:
            """Its refusal is plain text; ours is not."""

        check = TrustedHostMiddleware(note, allowed_hosts=self._hosts, www_redirect=False)
        await check(scope, receive, drop)
        return bool(passed)


class OriginCheck:
    """Refuses what another web page would change here, unless its origin is allowed."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._allowed = settings.allow_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        reading = scope["type"] == "http" and scope["method"] in READING
        if scope["type"] not in ASKING or reading or self._welcome(scope):
            await self._app(scope, receive, send)
            return
        origin = Headers(scope=scope)["origin"][:100]
        said = f"a page of {origin} may not do this; start the server with --allow-origin {origin}"
        answer = self._refuse(HTTPConnection(scope), ApiError(403, "foreign_origin", said))
        await answer(scope, receive, send)

    def _welcome(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or "*" in self._allowed or origin in self._allowed:
            return True
        # The scheme is not compared: behind a proxy that ends TLS, ours is another one.
        return _host_of(origin) == headers.get("host", "").lower()
