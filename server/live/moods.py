"""What a face does beside its prompt while its assistant listens or thinks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from engine.errors import AvatarError
from server.live.events import Event, Mood
from server.live.session import Session

log = logging.getLogger(__name__)
MOOD_WORDS: dict[Mood, str] = {
    "listening": "brows up 0.25",
    "thinking": "brows down 0.3, squint 0.35",
}


def worded(prompt: str, mood: Mood) -> str:
    """A prompt with the words of a mood."""
    return ", ".join(words for words in (prompt, MOOD_WORDS.get(mood, "")) if words)


class MoodFollower:
    """Lets the face of a session show its mood; `read` reads a prompt's words, as the engine does."""

    def __init__(self, session: Session, read: Callable[[str], Awaitable[Any]]) -> None:
        self._session, self._read = session, read
        self._shown = session.prompt
        self._task: asyncio.Task[None] | None = None
        session.events.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.type == "closing" and self._task is not None:
            self._task.cancel()
        if event.type == "prompt":
            self._shown = self._session.prompt
        if event.type in ("state", "prompt") and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        """Show what the mood has become, and again if it has changed meanwhile."""
        session = self._session
        while (wanted := worded(session.prompt, session.mood)) != self._shown:
            self._shown = wanted
            try:
                session.stream.set_prompt(await self._read(wanted))
            except AvatarError as error:  # too many words in all: the prompt is what was asked for
                log.info("session %s: the mood is not shown: %s", session.id, error)
                return
