"""What a session tells, and who hears it."""

from __future__ import annotations

import asyncio

import pytest

from server.live.events import KEPT, Event, EventHub

pytestmark = pytest.mark.timeout(10)


async def test_everybody_hears_everything_in_order_from_when_they_listen() -> None:
    hub = EventHub()
    hub.emit("viewers", count=0)
    with hub.listen() as one:
        hub.emit("viewers", count=1)
        with hub.listen() as two:
            hub.emit("viewers", count=2)
            assert [e.data["count"] for e in [await two.next(1)] if e] == [2]
        hub.emit("viewers", count=3)
        counts = [(await one.next(1)).data["count"] for _ in range(3)]  # type: ignore[union-attr]
        assert counts == [1, 2, 3]
        assert await one.next(0.01) is None
        assert not one.over
    assert hub._takers == []


async def test_listening_ends_after_closing_and_nothing_comes_behind_it() -> None:
    hub = EventHub()
    with hub.listen() as listener:
        hub.emit("portrait", portrait_id="x")
        hub.emit("closing", reason="client")
        hub.emit("viewers", count=0)
        hub.emit("closing", reason="again")
        assert [e.message() async for e in listener] == [
            {"type": "portrait", "portrait_id": "x"},
            {"type": "closing", "reason": "client"},
        ]
        assert listener.over


async def test_who_listens_too_late_hears_that_it_is_over() -> None:
    hub = EventHub()
    hub.emit("closing", reason="client")
    with hub.listen() as listener:
        assert [e.type async for e in listener] == ["closing"]
    heard: list[Event] = []
    hub.subscribe(heard.append)
    assert [e.data["reason"] for e in heard] == ["client"]


async def test_a_listener_that_does_not_read_keeps_the_newest_and_knows_what_it_missed() -> None:
    hub = EventHub()
    with hub.listen() as listener:
        for i in range(KEPT + 10):
            hub.emit("viewers", count=i)
        hub.emit("closing", reason="client")
        counts = [e.data.get("count") async for e in listener]
        assert counts == [*range(11, KEPT + 10), None]
        assert listener.missed == 11


async def test_a_listener_that_waits_is_woken() -> None:
    hub = EventHub()
    with hub.listen() as listener:
        waiting = asyncio.ensure_future(listener.next())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        hub.emit("viewers", count=7)
        assert (await waiting) == Event("viewers", {"count": 7})


def test_ending_a_subscription_twice_or_while_it_is_told_is_harmless() -> None:
    hub, heard = EventHub(), []

    def once(event: Event) -> None:
        heard.append(event.type)
        end()

    end = hub.subscribe(once)
    others: list[Event] = []
    hub.subscribe(others.append)
    hub.emit("viewers", count=1)
    hub.emit("viewers", count=2)
    end()
    assert heard == ["viewers"]
    assert len(others) == 2
