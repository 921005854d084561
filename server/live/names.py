"""Names that say where a session is: `REPLICA.RANDOM`, and its resume token `REPLICA.RANDOM.SIGNATURE`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

SECRET_HEADER = "x-portraittalk-cluster"  # only the ingress knows it
CLIENT_HEADER = "x-portraittalk-client"  # the network address that really asks
_SESSION = re.compile(r"(?:rtc_)?(([0-9a-f]{8})\.[A-Za-z0-9_-]{16})(?:\.[A-Za-z0-9_-]{43})?")


def new_replica() -> str:
    """A name that no replica had before."""
    return secrets.token_hex(4)


def new_session(replica: str) -> str:
    """The id of a new session; without a replica it names none."""
    name = secrets.token_urlsafe(12)
    return f"{replica}.{name}" if replica else name


def resume_token(shared_secret: str, session_id: str) -> str:
    """Who has it may take the viewer's place. Every replica with the `shared_secret` makes the same one."""
    if not shared_secret:
        return secrets.token_urlsafe(24)
    digest = hmac.digest(shared_secret.encode(), session_id.encode(), hashlib.sha256)
    return f"{session_id}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def session_named(text: object) -> str | None:
    """The session that an id, a call's id or a resume token names; None: none of a cluster."""
    found = _SESSION.fullmatch(text) if isinstance(text, str) else None
    return found[1] if found else None


def replica_of(session_id: str) -> str:
    """The replica that made the session."""
    return session_id.partition(".")[0]
