"""An avatar in the hands of an assistant's program: speech in, pictures and speech out.

The doors to frameworks (Pipecat, LiveKit Agents) are written against `Link`; the avatar is drawn in the same
process (`LocalLink`) or by a server (`server.programs.remote_link`).
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Literal

from server.live.events import Event
from server.live.session import Session
from server.live.speech import Utterance
from server.live.surroundings import SessionOptions
from server.programs.pieces import Over, Piece, Pieces, Said, receiving
from server.service import AvatarService
from server.sound.intake import SOUND_RATE_HZ
from server.sound.sound_format import SoundFormat

AHEAD_S = 50.0  # of speech that is sent ahead of what was played; the session holds 60


class Link(ABC):
    """One avatar, live between `open` and `close`. `async for piece in link` gives what leaves, when it
    leaves; it ends with the session.

    Speech is pushed as fast as it comes: pushing waits while 50 s are ahead of what was played.
    """

    def __init__(self) -> None:
        self.pieces = Pieces()
        self.session_id: str | None = None  # once it is open; viewers may join it
        self.utterance: str | None = None  # what is pushed now
        self.closed_for: str | None = None  # why the session ended
        self.over = asyncio.Event()  # nothing more comes
        self._rate_hz = 0
        self._ahead: dict[str, float] = {}  # seconds pushed and not yet played, of each utterance
        self._moved = asyncio.Event()

    @abstractmethod
    async def open(self) -> None:
        """Make the session and receive it. Raises `AvatarError` if it cannot be."""

    async def close(self) -> None:
        """End the session; what was not said is dropped. May be called again."""
        await self._close()
        self.pieces.close()
        self._forget()
        self.over.set()

    @abstractmethod
    async def set_mood(self, mood: Literal["idle", "listening", "thinking"]) -> None:
        """Say what the assistant does while it is silent."""

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    async def _begin(self, utterance: str, rate_hz: int) -> None: ...

    @abstractmethod
    async def _push(self, data: bytes) -> None: ...

    @abstractmethod
    async def _end(self) -> None: ...

    @abstractmethod
    async def _interrupt(self) -> None: ...

    @property
    def waiting_s(self) -> float:
        """Seconds of speech that were pushed and not yet played."""
        return sum(self._ahead.values())

    @property
    def cut_off(self) -> bool:
        """Whether the utterance that is pushed now was interrupted elsewhere: no more of it is played."""
        return self.utterance is not None and self.utterance not in self._ahead

    async def push(self, data: bytes, rate_hz: int) -> str:
        """Say more: mono PCM16; the first after `end` begins an utterance. Returns the utterance."""
        if self.utterance is None:
            self.utterance, self._rate_hz = f"a-{secrets.token_urlsafe(6)}", rate_hz
            self._ahead[self.utterance] = 0.0
            await self._begin(self.utterance, rate_hz)
        mine, second = self.utterance, 2 * self._rate_hz
        for begin in range(0, len(data), second):
            part = data[begin : begin + second]
            while self.waiting_s > AHEAD_S and mine in self._ahead:
                await self._wait()
            if mine in self._ahead:  # else it was cut off meanwhile
                self._ahead[mine] += len(part) / second
                await self._push(part)
        return mine

    async def end(self) -> None:
        """The utterance is complete. May be called again."""
        if self.utterance is not None:
            self.utterance = None
            await self._end()

    async def interrupt(self) -> tuple[str | None, float]:
        """Cut off everything; returns the utterance and how many ms of it were handed out."""
        cut = list(self._ahead)
        self.utterance = None
        self._forget()
        played = self.pieces.interrupt(cut)
        await self._interrupt()
        return played

    async def all_said(self) -> None:
        """Wait until everything that was pushed and ended has been handed out."""
        while self._ahead:
            await self._wait()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while True:
            try:
                piece = await self.pieces.get()
            except EOFError:
                break
            self._note(piece)
            yield piece
        self._forget()
        self.over.set()

    def _forget(self) -> None:
        """Nothing is waited for any more."""
        self._ahead.clear()
        self._moved.set()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def _note(self, piece: Piece) -> None:
        """Keep count of what was played."""
        if isinstance(piece, Over):
            self._ahead.pop(piece.utterance, None)
            self._moved.set()
        elif isinstance(piece, Said) and piece.utterance in self._ahead:
            self._ahead[piece.utterance] -= len(piece.pcm) / SOUND_RATE_HZ
            self._moved.set()


class LocalLink(Link):
    """An avatar drawn in this process, on this event loop."""

    def __init__(
        self, service: AvatarService, portrait_id: str = "default", prompt: str = ""
    ) -> None:
        super().__init__()
        self._service = service
        self._options = SessionOptions(portrait_id=portrait_id, prompt=prompt, voice="assistant")
        self._session: Session | None = None
        self._speaking: Utterance | None = None
        self._stack = ExitStack()

    async def open(self) -> None:
        """Make the session and receive it.

        Raises:
            AvatarError: what `AvatarService.open_session` raises.
        """
        session = self._session = await self._service.open_session(self._options)
        self.session_id = session.id
        self.pieces = self._stack.enter_context(receiving(session))
        self._stack.callback(session.events.subscribe(self._follow))

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close("client")
        self._stack.close()

    async def set_mood(self, mood: Literal["idle", "listening", "thinking"]) -> None:
        """Say what the assistant does while it is silent."""
        if self._session is not None:
            self._session.set_mood(mood)

    async def _begin(self, utterance: str, rate_hz: int) -> None:
        assert self._session is not None
        self._speaking = self._session.speech.begin(utterance, SoundFormat(rate_hz))

    async def _push(self, data: bytes) -> None:
        if self._speaking is not None and not self._speaking.over:
            self._speaking.push(data)

    async def _end(self) -> None:
        if self._speaking is not None:
            self._speaking.end()

    async def _interrupt(self) -> None:
        if self._session is not None:
            self._session.interrupt()

    def _follow(self, event: Event) -> None:
        if event.type == "closing":
            self.closed_for = event.data["reason"]
