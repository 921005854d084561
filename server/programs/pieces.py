"""A session's way out in one order, for who hands it on: pictures, speech alone, and where it ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av

from server.live.events import Event
from server.live.limits import ServerFull
from server.live.outlet import SOUND_KEPT, Heard, Outlet, Shown
from server.live.session import Session
from server.sound.intake import SOUND_RATE_HZ, Pcm48

DEAD_KEPT = 256  # utterances that were cut off and may still be on their way


class Said(NamedTuple):
    """Speech that leaves: `pcm` (N,) at 48 kHz, at most 20 ms."""

    utterance: str
    pcm: Pcm48


class Over(NamedTuple):
    """Nothing more comes of the utterance."""

    utterance: str
    interrupted: bool


Piece = av.VideoFrame | Said | Over  # a picture is yuv420p


class Pieces(Outlet):
    """An outlet that is one queue, on the event loop. Silence is left out.

    Bound: one picture, and 500 ms of speech. Overflow: a newer picture takes the place of one that was
    not fetched; the oldest speech goes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._spoken: deque[Said | Over] = deque()
        self._shown: av.VideoFrame | None = None
        self._came = asyncio.Event()
        self._over = False
        self._dead: deque[str] = deque(maxlen=DEAD_KEPT)
        self._open: str | None = None  # the utterance of the last speech offered, until it is over
        self._current: tuple[str, int] | None = (
            None  # utterance and samples of it that were fetched
        )

    def put(self, piece: Piece) -> None:
        """Offer a piece; what was cut off is let in no more."""
        if isinstance(piece, av.VideoFrame):
            self.missed += self._shown is not None
            self._shown = piece
        elif piece.utterance not in self._dead:
            self._put_in_order(piece)
            self._drop_overdue()
        self._came.set()

    def show(self, shown: Shown) -> None:
        """Offer a picture."""
        self.put(shown.frame)

    def hear(self, heard: Heard) -> None:
        """Offer what of a packet of sound is speech."""
        for part in heard.spoken:
            self.put(Said(part.utterance, heard.pcm[part.begin : part.end]))

    def close(self) -> None:
        """Nothing more comes; what waits can still be fetched."""
        super().close()
        self._over = True
        self._came.set()

    async def size(self) -> tuple[int, int]:
        """Wait for the first picture and return its width and height; raises `EOFError` if none comes."""
        while self._shown is None:
            if self._over:
                raise EOFError
            self._came.clear()
            await self._came.wait()
        return self._shown.width, self._shown.height

    async def get(self) -> Piece:
        """Wait for the next piece; raises `EOFError` once it is closed and empty."""
        while not self._spoken and self._shown is None:
            if self._over:
                raise EOFError
            self._came.clear()
            await self._came.wait()
        if not self._spoken:
            shown, self._shown = self._shown, None
            assert shown is not None
            return shown
        piece = self._spoken.popleft()
        if isinstance(piece, Over):
            self._current = None
        else:
            known = self._current
            before = known[1] if known and known[0] == piece.utterance else 0
            self._current = piece.utterance, before + len(piece.pcm)
        return piece

    def interrupt(self, utterances: list[str]) -> tuple[str | None, float]:
        """Drop the speech that waits and let in no more of these; returns whose ms were fetched."""
        self._dead.extend(utterances)
        self._spoken.clear()
        self._open = None
        current, self._current = self._current, None
        if current is None:
            return None, 0.0
        return current[0], 1000 * current[1] / SOUND_RATE_HZ

    def take(self, event: Event) -> None:
        """Take note of an event of the session."""
        if event.type == "speaking_stopped":
            self.put(Over(event.data["utterance"], event.data["interrupted"]))
        elif event.type == "interrupted":
            for utterance in event.data["dropped"]:
                self.put(Over(utterance, interrupted=True))
        elif event.type == "closing":
            self.close()

    def _put_in_order(self, piece: Said | Over) -> None:
        """Utterances are said one after the other: where one begins, the one before it is over."""
        before = self._open
        if isinstance(piece, Said) and before not in (None, piece.utterance):
            assert before is not None
            self._spoken.append(Over(before, interrupted=False))
            self._dead.append(before)
        self._spoken.append(piece)
        if isinstance(piece, Said):
            self._open = piece.utterance
        elif piece.utterance == before:
            self._open = None

    def _drop_overdue(self) -> None:
        while sum(isinstance(p, Said) for p in self._spoken) > SOUND_KEPT:
            first = next(p for p in self._spoken if isinstance(p, Said))
            self._spoken.remove(first)


@contextmanager
def receiving(session: Session) -> Iterator[Pieces]:
    """Receive a session inside the block.

    Raises:
        ServerFull: there is no place, or the session is over.
    """
    pieces = Pieces()
    end: Callable[[], None] = session.events.subscribe(pieces.take)
    try:
        if not session.attach(pieces):
            raise ServerFull("every place is taken; try again in a moment")
        yield pieces
    finally:
        end()
        session.detach(pieces)
