"""Who may do what: the token of a request, looked at by every route.

A client sends `Authorization: Bearer TOKEN`. Where a browser cannot set a header (a WebSocket, an
EventSource, a picture) the address may have `?token=`, and at OpenAI's door the subprotocol that
its clients send. The doors of encoders and players (WHIP, WHEP) also take the one lasting token of
`--bearer`, for those that cannot fetch a new one.
"""

from __future__ import annotations

import hmac
import time

from starlette.requests import HTTPConnection
from starlette.types import Scope

from server.errors import ApiError
from server.settings import ServerSettings
from server.trust.tokens import Access, Grant, TokenRefused, verify

KEY_PROTOCOL = "openai-insecure-api-key."  # how a browser sends its key to OpenAI's door
_BEARER_DOORS = ("/whip", "/whep")
_BEARER = Grant("bearer", frozenset({"view", "speak"}))
_GRANT = "portraittalk.grant"  # in a connection's scope


class Gate:
    """Lets in who has a token for what they ask; without a secret everybody."""

    def __init__(self, settings: ServerSettings) -> None:
        self._secrets, self._bearer = settings.auth_secret, settings.bearer.encode()

    @property
    def closed(self) -> bool:
        """Whether tokens are asked for."""
        return bool(self._secrets)

    def admit(self, scope: Scope, access: Access | None) -> None:
        """Note in `scope` who asks; raises `ApiError` unauthorized or forbidden."""
        # A browser asks first without a token what it may send (RFC 9725, section 4.7).
        if access is None or scope.get("method") == "OPTIONS":
            return
        door = scope["path"].removeprefix(scope.get("root_path", ""))
        lasting = door.startswith(_BEARER_DOORS) and bool(self._bearer)
        if self.closed or lasting:
            token = _token_of(HTTPConnection(scope))
            if lasting and hmac.compare_digest((token or "").encode(), self._bearer):
                scope[_GRANT] = _BEARER
            else:
                scope[_GRANT] = self.check(token, access)

    def check(self, token: str | None, access: Access) -> Grant:
        """Return whose token it is; raises `ApiError` unauthorized or forbidden."""
        if token is None:
            raise _unauthorized("send a token: Authorization: Bearer TOKEN", "")
        try:
            grant = verify(self._secrets, token, time.time())
        except TokenRefused as error:
            raise _unauthorized(str(error), ', error="invalid_token"') from None
        require(grant, access)
        return grant


def require(grant: Grant, access: Access) -> None:
    """Refuse who may not do this; raises `ApiError` forbidden."""
    if access not in grant.allows:
        asked = f'Bearer realm="portraittalk", error="insufficient_scope", scope="{access}"'
        said = f"the token does not allow this; its scope must have {access}"
        raise ApiError(403, "forbidden", said, {"WWW-Authenticate": asked})


def grant_of(connection: HTTPConnection) -> Grant:
    """Who asks; without tokens everybody is the same."""
    grant: Grant = connection.scope.get(_GRANT) or Grant()
    return grant


def _unauthorized(said: str, why: str) -> ApiError:
    return ApiError(
        401, "unauthorized", said, {"WWW-Authenticate": f'Bearer realm="portraittalk"{why}'}
    )


def _token_of(connection: HTTPConnection) -> str | None:
    """The token that was sent; None: none at all."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if connection.scope.get("method", "GET") in ("GET", "HEAD") and not scheme:
        offered = connection.scope.get("subprotocols", [])
        keys = [p.removeprefix(KEY_PROTOCOL) for p in offered if p.startswith(KEY_PROTOCOL)]
        return connection.query_params.get("token") or next(iter(keys), None)
    return None
