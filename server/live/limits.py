"""How many viewers at once, and who they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from engine.errors import AvatarError
from server.live.session import Session

RETRY_AFTER_S = 5


class ServerFull(AvatarError):
    """Every place is taken."""


class TooManyOffers(AvatarError):
    """An address has more sessions waiting to be connected than one may."""


class SessionBook:
    """The open sessions by id.

    A place is taken by who is connected; a session that nobody receives yet takes none, but each
    address may have only so many of them.

    Bound: `max_sessions` live ones; `per_address` waiting ones of each address. Overflow: the new one is
    refused; one that connects when the last place was taken meanwhile is ended.
    """

    def __init__(self, max_sessions: int, per_address: int = 4) -> None:
        self.max_sessions, self.per_address = max_sessions, per_address
        self.draining = False  # nobody new is taken
        self._sessions: dict[str, Session] = {}
        self._live: set[str] = set()
        self._waiting: dict[str, str] = {}  # session id -> address
        self._making: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    @property
    def live(self) -> int:
        """How many take a place."""
        return len(self._live)

    def get(self, session_id: str) -> Session | None:
        """Return an open session."""
        return self._sessions.get(session_id)

    def by_token(self, token: str) -> Session | None:
        """Return the open session that this resume token belongs to."""
        return next((s for s in self if s.token == token), None)

    def check_place(self, session: Session | None = None) -> None:
        """Raise `ServerFull` if there is none for a new session, or for one that may have its own."""
        if session is not None and session.id in self._live:
            return
        if self.draining:
            raise ServerFull("this server is about to stop; another one may take you")
        if self.live >= self.max_sessions:
            raise ServerFull(f"all {self.max_sessions} places are taken; try again in a moment")

    async def open(self, make: Callable[[], Awaitable[Session]], address: str = "") -> Session:
        """Make a session that waits to be connected.

        Raises:
            ServerFull: every place is taken.
            TooManyOffers: too many from this address wait already.
            Exception: whatever `make` raised.
        """
        self.check_place()
        waiting = sum(known == address for known in self._waiting.values())
        if waiting + self._making[address] >= self.per_address:
            raise TooManyOffers(f"{waiting} sessions from this address wait to be connected")
        self._making[address] += 1
        try:
            session = await make()
            self._sessions[session.id] = session
            self._waiting[session.id] = address
            return session
        finally:
            self._making[address] -= 1
            if not self._making[address]:
                del self._making[address]

    def admit(self, session: Session) -> bool:
        """Give a session its place when its first receiver comes; False if there is none."""
        if self.live >= self.max_sessions:
            return False
        self._waiting.pop(session.id, None)
        self._live.add(session.id)
        return True

    def forget(self, session: Session) -> None:
        """Free the place of a session that ended. May be called again."""
        self._sessions.pop(session.id, None)
        self._waiting.pop(session.id, None)
        self._live.discard(session.id)

    async def close_all(self, reason: str = "closed") -> None:
        """Close every session and wait."""
        await asyncio.gather(*(session.close(reason) for session in self))
