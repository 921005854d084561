"""How long a session lasts, who keeps it, and that it pauses: without any network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError
from server.errors import ApiError
from server.live.events import Event
from server.live.limits import TooManyOffers
from server.live.outlet import Outlet
from server.live.session import Session, SessionOptions
from server.live.worker import WorkerStopped
from server.service import AvatarService
from server.settings import ServerSettings
from server.sound.sound_format import SoundFormat
from tests.server.fake_engine import FakeEngine
from tests.server.live import PORTRAIT, until

pytestmark = pytest.mark.timeout(30)
Serve = Callable[..., Awaitable[AvatarService]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a service with these settings."""
    running = []

    async def start(**settings: Any) -> AvatarService:
        settings = {"capacity": 2, "connect_timeout_s": 0.5, **settings}
        service = AvatarService(FakeEngine(side=64), ServerSettings(**settings))
        await service.start(PORTRAIT, "Test")
        running.append(service)
        return service

    yield start
    for service in running:
        await service.stop()


def told(session: Session) -> list[dict[str, Any]]:
    """What it tells from now on."""
    messages: list[dict[str, Any]] = []
    session.events.subscribe(lambda event: messages.append(event.message()))
    return messages


async def drain(outlet: Outlet) -> None:
    while True:
        await outlet.picture()


async def test_a_session_that_nobody_connects_to_expires_and_frees_its_address(
    serve: Serve,
) -> None:
    service = await serve(offers_per_address=1)
    session = await service.open_session(SessionOptions(), "10.0.0.1")
    messages = told(session)
    with pytest.raises(TooManyOffers):
        await service.open_session(SessionOptions(), "10.0.0.1")
    took = await until(lambda: len(service.sessions) == 0, 5)
    assert 0.3 < took < 3
    assert messages == [{"type": "closing", "reason": "expired"}]
    await service.open_session(SessionOptions(), "10.0.0.1")


async def test_it_may_be_given_more_time_and_a_hold_keeps_it(serve: Serve) -> None:
    service = await serve()
    patient = await service.open_session(SessionOptions(expires_s=30))
    held = await service.open_session(SessionOptions())
    with held.hold():
        await asyncio.sleep(1.2)
        assert (patient.closed_for, held.closed_for) == (None, None)
    await until(lambda: held.closed_for == "expired", 5)
    assert patient.closed_for is None


async def test_a_receiver_that_is_lost_may_come_back_and_one_that_left_may_not(
    serve: Serve,
) -> None:
    service = await serve(resume_s=20)
    session = await service.open_session(SessionOptions())
    first, second = Outlet(), Outlet()
    assert session.attach(first)
    await first.sound()
    session.detach(first)
    await asyncio.sleep(0.8)
    assert session.closed_for is None
    assert session.attach(second)
    await second.picture()
    session.detach(second, for_good=True)
    await until(lambda: len(service.sessions) == 0, 3)
    assert session.closed_for == "expired"


async def test_who_leaves_for_good_takes_nothing_from_who_was_lost(serve: Serve) -> None:
    service = await serve(resume_s=20)
    session = await service.open_session(SessionOptions())
    lost, leaves = Outlet(), Outlet()
    assert session.attach(lost)
    assert session.attach(leaves)
    session.detach(lost)
    session.detach(leaves, for_good=True)
    await asyncio.sleep(0.5)
    assert session.attach(Outlet())


async def test_one_render_for_all_and_each_is_counted(serve: Serve) -> None:
    service = await serve(max_sessions=1)
    session = await service.open_session(SessionOptions())
    messages = told(session)
    outlets = [Outlet() for _ in range(3)]
    assert all(session.attach(outlet) for outlet in outlets)
    assert service.sessions.live == 1
    frames = [(await outlet.picture()).frame for outlet in outlets]
    assert len({frame.pts for frame in frames}) == 1
    session.detach(outlets[1])
    session.detach(outlets[1])
    with pytest.raises(EOFError):
        await drain(outlets[1])
    counts = [m["count"] for m in messages if m["type"] == "viewers"]
    assert counts == [1, 2, 3, 2]
    assert [m["type"] for m in messages].count("ready") == 1
    await session.close("client")
    for outlet in outlets:
        assert outlet.closed
    assert messages[-1] == {"type": "closing", "reason": "client"}
    assert not session.attach(Outlet())


async def test_a_pause_draws_nothing_keeps_what_was_to_be_said_and_goes_on(serve: Serve) -> None:
    service = await serve(resume_s=20)
    session = await service.open_session(SessionOptions(voice="assistant"))
    first, second = Outlet(), Outlet()
    utterance = session.speech.begin("a", SoundFormat(48_000))
    utterance.push(np.full(48_000 * 2, 7000, "<i2").tobytes())
    utterance.end()
    assert session.attach(first)
    loud = 0
    while loud < 10:
        loud += bool((await first.sound()).pcm.any())
    session.detach(first)
    await until(lambda: session.line.intake is None, 2)
    place, waiting = session.line.place, session.speech.buffered_s
    batches = len(service.worker.engine.batches)  # type: ignore[attr-defined]
    await asyncio.sleep(0.7)
    assert (session.line.place, session.speech.buffered_s) == (place, waiting)
    assert len(service.worker.engine.batches) <= batches + 2  # type: ignore[attr-defined]
    messages = told(session)
    assert session.attach(second)
    began = time.monotonic()
    heard = []
    while not any(m["type"] == "speaking_stopped" for m in messages):
        heard.append(await second.sound())
        assert time.monotonic() - began < 10
    assert [b.pts - a.pts for a, b in zip(heard, heard[1:], strict=False)] == [960] * (
        len(heard) - 1
    )
    whole = loud + sum(bool(each.pcm.any()) for each in heard)
    assert whole == pytest.approx(100, abs=4)  # 2 s
    assert heard[-1].wall == pytest.approx(time.time(), abs=0.5)
    assert "quality" not in [m["type"] for m in messages]  # a pause is no overload


async def test_an_interruption_while_nobody_listens_is_harmless(serve: Serve) -> None:
    service = await serve(resume_s=20)
    session = await service.open_session(SessionOptions())
    assert session.interrupt() == (None, 0.0)
    outlet = Outlet()
    utterance = session.speech.begin("a", SoundFormat(48_000))
    utterance.push(np.full(48_000 * 5, 7000, "<i2").tobytes())
    assert session.attach(outlet)
    while not (await outlet.sound()).pcm.any():
        pass
    session.detach(outlet)
    await until(lambda: session.line.intake is None, 2)
    name, position_ms = session.interrupt()
    assert name == "a"
    assert position_ms > 0
    again = Outlet()
    assert session.attach(again)
    peaks = [int(np.abs((await again.sound()).pcm.astype(int)).max()) for _ in range(20)]
    assert max(peaks[1:]) == 0
    assert (await again.picture()).picture.index > 0


async def test_the_mood_follows_what_is_said(serve: Serve) -> None:
    service = await serve()
    session = await service.open_session(SessionOptions())
    assert session.attach(Outlet())
    messages = told(session)
    session.set_mood("thinking")
    session.set_mood("thinking")
    utterance = session.speech.begin("a", SoundFormat(48_000))
    utterance.push(np.full(4800, 7000, "<i2").tobytes())
    utterance.end()
    await until(lambda: session.mood == "idle", 5)
    states = [m["state"] for m in messages if m["type"] == "state"]
    assert states == ["thinking", "speaking", "idle"]


async def test_an_unknown_mixing_rule_leaves_nothing_behind(serve: Serve) -> None:
    service = await serve()
    with pytest.raises(ConfigError, match="voice='loud'"):
        await service.open_session(SessionOptions(voice="loud"))  # type: ignore[arg-type]
    assert len(service.sessions) == 0


async def test_a_listener_that_fails_is_told_of_in_the_log_and_ends_that_session_alone(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    service = await serve()
    session, other = [await service.open_session(SessionOptions()) for _ in range(2)]
    outlet = Outlet()
    assert session.attach(Outlet())
    assert other.attach(outlet)

    def fail(event: Event) -> None:
        if event.type == "stats":
            raise RuntimeError("as asked")

    session.events.subscribe(fail)
    await until(lambda: session.closed_for == "failed", 5)
    assert "as asked" in caplog.text
    await outlet.sound()
    assert other.closed_for is None


async def test_when_the_engine_thread_is_gone_its_sessions_end_and_say_why(serve: Serve) -> None:
    service = await serve()
    session = await service.open_session(SessionOptions())
    messages = told(session)
    assert session.attach(Outlet())
    await until(lambda: session.line.intake is not None, 5)
    await asyncio.to_thread(service.worker.stop)
    await until(lambda: len(service.sessions) == 0, 5)
    assert [m["type"] for m in messages[-2:]] == ["error", "closing"]
    with pytest.raises(WorkerStopped):
        await service.open_session(SessionOptions())
    with pytest.raises(ApiError, match="over"):
        service.find_session(session.id)


async def test_stopping_tells_everybody_and_leaves_no_task(serve: Serve) -> None:
    before = asyncio.all_tasks()
    service = await serve()
    sessions = [await service.open_session(SessionOptions()) for _ in range(2)]
    assert sessions[0].attach(Outlet())
    messages = [told(session) for session in sessions]
    await service.stop()
    assert [m[-1] for m in messages] == [{"type": "closing", "reason": "server_stopping"}] * 2
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()
