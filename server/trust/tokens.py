"""Session tokens: JSON Web Tokens (RFC 7519) signed by HMAC-SHA256, as every language's library makes them.

The back end of whoever runs the server makes them with the shared secret. Claims: `sub` (whose it is),
`exp` (when it ends, seconds since 1970), `scope` (words with spaces between), and `nbf` if wanted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from engine.errors import AvatarError

# What a token may allow: to see and hear; to be heard, as a visitor or as an assistant; to make, change
# and end sessions; to enrol portraits.
Access = Literal["view", "speak", "control", "portraits"]
ACCESSES: tuple[Access, ...] = get_args(Access)
MOST_CHARACTERS = 4096
LEEWAY_S = 5.0  # by which the clocks of two machines may differ


class TokenRefused(AvatarError):
    """A token is not taken."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Who asks, and what they may do."""

    subject: str = ""
    allows: frozenset[str] = frozenset(ACCESSES)
    token: str = field(default="", compare=False)  # its fingerprint; "": none was asked for


def sign(secret: str, subject: str, scopes: Iterable[str], expires_at: float) -> str:
    """Return a token that lets `subject` do what `scopes` name until `expires_at` (seconds since 1970)."""
    claims = {"sub": subject, "scope": " ".join(scopes), "exp": int(expires_at)}
    head = f"{_pack({'alg': 'HS256', 'typ': 'JWT'})}.{_pack(claims)}"
    return f"{head}.{_encode(_signature(secret, head))}"


def verify(secrets: Sequence[str], token: str, now: float) -> Grant:
    """Read a token that one of `secrets` signed; `now` is in seconds since 1970.

    Raises:
        TokenRefused: it is none, or another's, or over.
    """
    head, _, signature = token.rpartition(".")
    first, _, second = head.partition(".")
    if len(token) > MOST_CHARACTERS or not second or "." in second:
        raise TokenRefused("this is no token")
    given = _decode(signature)
    if not any(hmac.compare_digest(given, _signature(secret, head)) for secret in secrets):
        raise TokenRefused("the token is not signed with the server's secret")
    if _unpack(first).get("alg") != "HS256":
        raise TokenRefused("the token must be signed by HS256")
    return _grant(_unpack(second), now, hashlib.sha256(token.encode()).hexdigest()[:16])


def _grant(claims: dict[str, Any], now: float, fingerprint: str) -> Grant:
    subject, scope = claims.get("sub"), claims.get("scope", "")
    begins, ends = claims.get("nbf", 0), claims.get("exp")
    if not isinstance(subject, str) or not subject:
        raise TokenRefused("the token must say whose it is: sub")
    if not isinstance(ends, int | float) or not isinstance(begins, int | float):
        raise TokenRefused("the token must say when it ends: exp, in seconds since 1970")
    if not ends > now - LEEWAY_S:
        raise TokenRefused("the token is over; ask for a new one")
    if not begins <= now + LEEWAY_S:
        raise TokenRefused("the token is not valid yet")
    words = scope.split() if isinstance(scope, str) else scope
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TokenRefused("the token's scope must be words with spaces between")
    return Grant(subject, frozenset(words), fingerprint)


def _signature(secret: str, head: str) -> bytes:
    return hmac.digest(secret.encode(), head.encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise TokenRefused("this is no token") from None


def _pack(value: dict[str, Any]) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _unpack(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(text))
    except (ValueError, RecursionError):
        raise TokenRefused("this is no token") from None
    if not isinstance(value, dict):
        raise TokenRefused("this is no token")
    return value
