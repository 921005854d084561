"""The end of a server that others wait for: what is being said is said to its end, then all are told."""

from __future__ import annotations

import asyncio

from server.live.session import Session
from server.service import AvatarService

NOTICE_S = 1.0  # between the event `draining` and the end


async def drain(service: AvatarService, limit_s: float) -> None:
    """Take nobody new, wait until nobody is spoken to, at most `limit_s`, give notice, end sessions."""
    service.sessions.draining = True
    speaking = [asyncio.ensure_future(_silent(session)) for session in service.sessions]
    if speaking:
        _, still = await asyncio.wait(speaking, timeout=limit_s)
        for task in still:
            task.cancel()
        await asyncio.gather(*still, return_exceptions=True)
    sessions = list(service.sessions)
    for session in sessions:
        session.events.emit("draining", in_ms=round(1000 * NOTICE_S))
    if sessions:
        await asyncio.sleep(NOTICE_S)
    await service.sessions.close_all("server_stopping")


async def _silent(session: Session) -> None:
    """Wait until the session has said all that it has, or ends; one that nobody hears is silent."""
    with session.events.listen() as events:
        while session.live and (session.mood == "speaking" or session.speech.buffered_s > 0):
            if await events.next() is None:
                return
