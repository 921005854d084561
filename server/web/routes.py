"""Routes that say what they are: who may ask, what is taken, what comes back.

Every route of the application is one of these; `server.web.openapi` publishes what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from server.trust.tokens import Access

Body = type[BaseModel] | tuple[type[BaseModel], ...] | str  # models of JSON, or a media type
Answer = tuple[str, ...] | str | None  # names in a JSON object, a media type, or nothing


@dataclass(frozen=True, slots=True)
class Terms:
    """What one method of a route takes and gives; refusals, which all look alike, are left out."""

    gives: Mapping[int, Answer]
    takes: Body | None = None
    query: type[BaseModel] | None = None
    names: tuple[str, ...] = field(default=())  # further parameters of the address
    headers: tuple[str, ...] = field(default=())  # that it understands


class Operation(Route):
    """A route with its terms, by method.

    Args:
        access: what a token must allow; None: anybody may ask.
    """

    def __init__(
        self, path: str, endpoint: Callable[..., Any], access: Access | None, **terms: Terms
    ) -> None:
        methods = None if isinstance(endpoint, type) else list(terms)  # a class knows its own
        super().__init__(path, endpoint, methods=methods)
        self.access, self.terms = access, terms

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer who may ask; raises `ApiError` unauthorized or forbidden."""
        scope["app"].state.service.gate.admit(scope, self.access)
        await super().handle(scope, receive, send)


class Socket(WebSocketRoute):
    """The route of a WebSocket.

    Args:
        access: what a token must allow; None: the endpoint looks itself.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        access: Access | None,
        query: type[BaseModel] | None = None,
    ) -> None:
        super().__init__(path, endpoint)
        self.access, self.query = access, query

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the socket of who may ask; raises `ApiError` unauthorized or forbidden."""
        scope["app"].state.service.gate.admit(scope, self.access)
        await super().handle(scope, receive, send)
