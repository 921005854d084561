"""Connections that are known by an address of their own, as those of WHEP and WHIP are."""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Iterable

from server.errors import ApiError
from server.live.session import Session
from server.webrtc.viewer import Viewer

_UFRAG = re.compile(r"^a=ice-ufrag:(\S+)", re.MULTILINE)
REMEMBERED = 256
ANY_TAG = ("*", '"*"')


class Resource:
    """One connection, with the tag of what it negotiated.

    Args:
        address: the network address that asked for it.
        offer: the offer that it answers.
    """

    def __init__(self, viewer: Viewer, address: str, offer: str) -> None:
        self.id = secrets.token_urlsafe(12)
        self.etag = f'"{secrets.token_urlsafe(6)}"'
        self.viewer, self.address = viewer, address
        self.owns_session = False  # which then ends with it
        self._ufrags = set(_UFRAG.findall(offer))

    def check_match(self, if_match: str | None, ufrag: str | None) -> None:
        """Refuse candidates of another negotiation than this one's, `ufrag`.

        Raises:
            ApiError: 412 `if_match` is another tag, 428 it is missing though the negotiation is another
                one, 422 the connection is to be negotiated anew, which it cannot be.
        """
        if if_match is not None and if_match.strip() not in ANY_TAG:
            if self.etag not in [tag.strip() for tag in if_match.split(",")]:
                raise ApiError(412, "other_etag", "the connection was negotiated anew since")
        if ufrag is None or ufrag in self._ufrags:
            return
        if if_match is None:
            said = "these candidates are of another negotiation; say which by If-Match"
            raise ApiError(428, "no_etag", said)
        said = "the connection cannot be negotiated anew; end it and make another one"
        raise ApiError(422, "no_ice_restart", said)


class ResourceBook:
    """Those that are open, by session and id.

    Bound: of 256 that hung up is known that they were there. Overflow: the oldest are forgotten.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Resource] = {}
        self._hung_up: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)

    def add(self, resource: Resource) -> None:
        """Keep it until its connection is gone."""
        key = (resource.viewer.session.id, resource.id)
        self._open[key] = resource
        resource.viewer.when_gone(lambda: self._forget(key))

    def find(self, session_id: str, resource_id: str) -> Resource:
        """Return an open one; raises `ApiError` unknown_connection."""
        resource = self._open.get((session_id, resource_id))
        if resource is None:
            raise ApiError(404, "unknown_connection", "this connection is over")
        return resource

    async def end(self, session_id: str, resource_id: str) -> None:
        """Hang up; raises `ApiError` unknown_connection.

        Who hung up itself may still say so once: clients close their connection first.
        """
        key = (session_id, resource_id)
        if key not in self._hung_up:
            await self.find(session_id, resource_id).viewer.close()
        if key in self._hung_up:
            self._hung_up.remove(key)

    def _forget(self, key: tuple[str, str]) -> None:
        del self._open[key]
        self._hung_up.append(key)

    def waiting(self) -> list[Resource]:
        """Those that are still to connect."""
        return [resource for resource in self._open.values() if resource.viewer.waiting]

    def receivers(self, session: Session) -> int:
        """How many receive a session, or are about to by an address of their own."""
        coming = (r.viewer for r in self.waiting() if r.viewer.role == "watch")
        return len(session.broadcast.outlets) + sum(v.session is session for v in coming)

    def watching(self, sessions: Iterable[Session]) -> int:
        """How many receive what is drawn for another, or are about to."""
        return sum(max(0, self.receivers(session) - 1) for session in sessions)

    def publishers(self, session_id: str) -> list[Resource]:
        """Those that publish a microphone to a session."""
        return [
            resource
            for (session, _), resource in self._open.items()
            if session == session_id and resource.viewer.role == "publish"
        ]
