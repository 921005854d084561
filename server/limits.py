"""How many viewers at once, and who they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from engine.errors import AvatarError
from server.session import Session

RETRY_AFTER_S = 5


class ServerFull(AvatarError):
    """Every place is taken."""


class SessionBook:
    """The open sessions by id.

    Bound: `max_sessions`, those being made included. Overflow: the new one is refused.
    """

    def __init__(self, max_sessions: int) -> None:
        self.max_sessions = max_sessions
        self._sessions: dict[str, Session] = {}
        self._making = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def get(self, session_id: str) -> Session | None:
        """Return an open session."""
        return self._sessions.get(session_id)

    async def open(self, make: Callable[[], Awaitable[Session]]) -> Session:
        """Make a session if there is a place.

        Raises:
            ServerFull: there is none.
            Exception: whatever `make` raised.
        """
        if len(self._sessions) + self._making >= self.max_sessions:
            raise ServerFull(f"all {self.max_sessions} places are taken; try again in a moment")
        self._making += 1
        try:
            session = await make()
            self._sessions[session.id] = session
            return session
        finally:
            self._making -= 1

    def forget(self, session: Session) -> None:
        """Free the place of a session that ended. May be called again."""
        self._sessions.pop(session.id, None)

    async def close_all(self) -> None:
        """Close every session and wait."""
        await asyncio.gather(*(session.close() for session in self))
