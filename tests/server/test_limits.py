"""Places for viewers, and who may wait for one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from server.live.limits import ServerFull, SessionBook, TooManyOffers


def maker(name: str, gate: asyncio.Event | None = None) -> Any:
    async def make() -> Any:
        if gate is not None:
            await gate.wait()
        return SimpleNamespace(id=name, token=f"token of {name}")

    return make


async def test_a_session_is_found_until_it_is_forgotten() -> None:
    book = SessionBook(1)
    session = await book.open(maker("a"))
    assert (book.get("a"), book.by_token("token of a"), len(book)) == (session, session, 1)
    book.forget(session)
    book.forget(session)
    assert (book.get("a"), book.by_token("token of a"), len(book)) == (None, None, 0)


async def test_only_who_connects_takes_a_place() -> None:
    book = SessionBook(1)
    waiting = [await book.open(maker(name)) for name in "abc"]
    assert book.live == 0
    assert book.admit(waiting[1])
    assert book.live == 1
    assert not book.admit(waiting[0])  # it came too late
    with pytest.raises(ServerFull, match="all 1 places"):
        await book.open(maker("d"))
    book.forget(waiting[1])
    assert book.admit(waiting[0])


async def test_a_place_is_free_again_when_its_session_is_forgotten() -> None:
    book = SessionBook(1)
    session = await book.open(maker("a"))
    assert book.admit(session)
    book.forget(session)
    book.forget(session)
    assert (len(book), book.live) == (0, 0)
    assert book.admit(await book.open(maker("b")))


async def test_an_address_may_have_so_many_that_wait_and_no_more() -> None:
    book = SessionBook(9, per_address=2)
    first = await book.open(maker("a"), "10.0.0.1")
    await book.open(maker("b"), "10.0.0.1")
    with pytest.raises(TooManyOffers):
        await book.open(maker("c"), "10.0.0.1")
    await book.open(maker("d"), "10.0.0.2")  # another one may
    assert book.admit(first)  # connected: it waits no more
    await book.open(maker("e"), "10.0.0.1")
    with pytest.raises(TooManyOffers):
        await book.open(maker("f"), "10.0.0.1")
    for waiting in list(book):
        book.forget(waiting)
    await book.open(maker("g"), "10.0.0.1")


async def test_one_that_is_being_made_counts_as_waiting() -> None:
    book, gate = SessionBook(9, per_address=1), asyncio.Event()
    first = asyncio.ensure_future(book.open(maker("a", gate), "10.0.0.1"))
    await asyncio.sleep(0)
    with pytest.raises(TooManyOffers):
        await book.open(maker("b"), "10.0.0.1")
    gate.set()
    assert (await first).id == "a"


async def test_a_session_that_cannot_be_made_leaves_no_trace() -> None:
    book = SessionBook(1, per_address=1)

    async def fail() -> Any:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await book.open(fail, "10.0.0.1")
    await book.open(maker("a"), "10.0.0.1")
    assert len(book) == 1
    assert not book._making  # whatever number of addresses asked


async def test_fewer_places_than_are_taken_end_nobody() -> None:
    book = SessionBook(2)
    sessions = [await book.open(maker(name)) for name in "abc"]
    assert book.admit(sessions[0])
    assert book.admit(sessions[1])
    book.max_sessions = 1  # the machine turns out to be slower
    assert book.live == 2
    assert not book.admit(sessions[2])
    with pytest.raises(ServerFull):
        book.check_place()
    book.forget(sessions[0])
    with pytest.raises(ServerFull):
        book.check_place()
