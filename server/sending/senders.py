"""What a session shows, sent elsewhere: how that begins, ends, and who is told."""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from typing import Literal

from engine.errors import AvatarError
from server.live.limits import ServerFull
from server.live.outlet import Outlet
from server.live.session import Session

log = logging.getLogger(__name__)
MOST = 4  # senders of one session
Kind = Literal["publish", "livelink", "camera"]


class SendingFailed(AvatarError):
    """The other side does not take it."""


class Sender(ABC):
    """One receiver of a session that sends on what it gets, until either of them ends.

    Args:
        kind: the door that made it.
        target: where to, as everybody may read it: no keys.
    """

    def __init__(self, session: Session, kind: Kind, target: str) -> None:
        self.id = secrets.token_urlsafe(6)
        self.session, self.kind, self.target = session, kind, target
        self.outlet = Outlet()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Receive from now on; raises `ServerFull`."""
        if not self.session.attach(self.outlet):
            raise ServerFull("the server is full; try again soon")
        self.session.on_close.append(self.stop)
        self._task = asyncio.create_task(self._run(), name=f"{self.kind} {self.id}")
        return self._task

    async def stop(self) -> None:
        """End it and wait until everything that it got is sent. May be called again."""
        self.outlet.close()
        if self._task is not None:
            await asyncio.wait([self._task])

    @abstractmethod
    async def send(self) -> None:
        """Send what the outlet gives until it is closed; raises `SendingFailed` or OSError."""

    async def _run(self) -> None:
        self._tell("started")
        state, said = "failed", "it ended by an error of the server's own"
        try:
            await self.send()
            state, said = "ended", ""
        except (SendingFailed, OSError) as error:
            said = str(error)
            log.warning("session %s: %s to %s: %s", self.session.id, self.kind, self.target, said)
        finally:
            self.session.detach(self.outlet)
            if self.stop in self.session.on_close:
                self.session.on_close.remove(self.stop)
            self._tell(state, said)

    def _tell(self, state: str, message: str = "") -> None:
        self.session.events.emit(
            "sender",
            id=self.id,
            kind=self.kind,
            target=self.target,
            state=state,
            message=message,
        )


class Senders:
    """All senders of a service."""

    def __init__(self) -> None:
        self._senders: dict[str, Sender] = {}

    def start(self, sender: Sender) -> None:
        """Start one; raises `ServerFull`, also if its session has `MOST` already."""
        if len(self.of(sender.session)) >= MOST:
            raise ServerFull(f"a session is sent to {MOST} places at most")
        task = sender.start()
        self._senders[sender.id] = sender
        task.add_done_callback(lambda task: self._over(sender, task))

    def of(self, session: Session, kind: Kind | None = None, id: str | None = None) -> list[Sender]:
        """Those of a session, of one kind, with one id; None: whichever."""
        return [
            sender
            for sender in self._senders.values()
            if sender.session is session and kind in (None, sender.kind) and id in (None, sender.id)
        ]

    async def stop(self, session: Session, kind: Kind, id: str | None) -> None:
        """End one, or with `id` None all of that kind, and wait until they are through."""
        for sender in self.of(session, kind, id):
            await sender.stop()

    def _over(self, sender: Sender, task: asyncio.Task[None]) -> None:
        self._senders.pop(sender.id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s of session %s failed", sender.kind, sender.session.id, exc_info=error)
