"""Places for viewers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from server.limits import ServerFull, SessionBook


def maker(name: str, gate: asyncio.Event | None = None) -> Any:
    async def make() -> Any:
        if gate is not None:
            await gate.wait()
        return SimpleNamespace(id=name)

    return make


async def test_a_place_being_taken_counts_as_taken() -> None:
    book, gate = SessionBook(1), asyncio.Event()
    first = asyncio.ensure_future(book.open(maker("a", gate)))
    await asyncio.sleep(0)
    with pytest.raises(ServerFull, match="all 1 places"):
        await book.open(maker("b"))
    gate.set()
    assert (await first).id == "a"
    assert book.get("a") is await first
    assert book.get("b") is None


async def test_a_session_that_cannot_be_made_takes_no_place() -> None:
    book = SessionBook(1)

    async def fail() -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await book.open(fail)
    await book.open(maker("a"))
    assert len(book) == 1


async def test_a_place_is_free_again_when_its_session_is_forgotten() -> None:
    book = SessionBook(1)
    session = await book.open(maker("a"))
    book.forget(session)
    book.forget(session)
    assert len(book) == 0
    await book.open(maker("b"))
