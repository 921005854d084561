"""Which STUN and TURN servers a connection may use, with passwords that end by themselves.

coturn's REST scheme (`use-auth-secret`, `static-auth-secret`): the name says when it ends, the
password is its signature, and only the two servers know the secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TypedDict

from server.settings import ServerSettings

LASTS_S = 86_400.0  # a page that stays open all day comes back by the same password


class IceServer(TypedDict, total=False):
    """One server as a browser's RTCConfiguration has it."""

    urls: str
    username: str
    credential: str


def ice_servers(settings: ServerSettings, subject: str, now: float) -> list[IceServer]:
    """The servers for `subject`; `now` is in seconds since 1970."""
    found: list[IceServer] = []
    for url in settings.ice_servers:
        if url.startswith("stun:"):
            found.append({"urls": url})
            continue
        name = f"{int(now + LASTS_S)}:{subject or 'anybody'}"
        signed = hmac.digest(settings.turn_secret.encode(), name.encode(), hashlib.sha1)
        password = base64.b64encode(signed).decode()
        found.append({"urls": url, "username": name, "credential": password})
    return found
