"""Whatever goes wrong while a session is released: the rest is released and its place is free."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import pytest

from server import session as session_module
from server.clips import Chunk
from server.limits import SessionBook
from server.metrics import Metrics
from server.service import AvatarService
from server.session import Session
from server.settings import ServerSettings
from server.worker import EngineWorker
from tests.server.fake_engine import FakeEngine
from tests.server.live import offer_sdp

pytestmark = pytest.mark.timeout(20)
Hold = Callable[..., Awaitable["Held"]]
IMAGE = np.full((64, 64, 3), 77, dtype=np.uint8)
STEPS = (
    "worker.detach",
    "stream.close",
    "video.stop",
    "audio.stop",
    "playout.interrupt",
    "pc.close",
)


@dataclass
class Held:
    """A session in a book, with everything that it holds."""

    session: Session
    book: SessionBook
    worker: EngineWorker
    metrics: Metrics

    def break_step(self, step: str) -> None:
        """Let a step of the release raise instead of doing its work."""
        owner, method = step.split(".")

        def fail(*args: object) -> None:
            raise ConnectionError(f"{step} failed, as asked")

        async def fail_later(*args: object) -> None:
            fail()

        target = self.worker if owner == "worker" else getattr(self.session, owner)
        setattr(target, method, fail_later if step == "pc.close" else fail)

    def released(self) -> dict[str, bool]:
        """Which steps of the release have done their work."""
        session = self.session
        session.stream.push(Chunk(np.ones(960, np.int16), 0, None, 0.0))
        return {
            "stream.close": session.stream.deadline() is None,
            "video.stop": session.video.readyState == "ended",
            "audio.stop": session.audio.readyState == "ended",
            "playout.interrupt": session.playout.generation == 1,
            "pc.close": session.pc.connectionState == "closed",
        }

    def failures(self) -> float | None:
        return self.metrics.registry.get_sample_value("portraittalk_sessions_failed_total")


@pytest.fixture
async def hold() -> AsyncIterator[Hold]:
    """Makes a session of which these steps fail."""
    engine, metrics = FakeEngine(side=64), Metrics()
    worker = EngineWorker(engine)
    worker.start()
    closes = []

    async def make_held(*broken: str) -> Held:
        book, state = SessionBook(1), engine.start(engine.enroll(IMAGE))

        async def make() -> Session:
            return Session(ServerSettings(), worker, state, metrics, on_closed=book.forget)

        held = Held(await book.open(make), book, worker, metrics)
        closes.append(held.session.pc.close)
        for step in broken:
            held.break_step(step)
        return held

    yield make_held
    for close in closes:
        await close()
    await asyncio.to_thread(worker.stop)


async def test_a_session_gives_everything_back(hold: Hold) -> None:
    held = await hold()
    await held.session.close()
    assert all(held.released().values())
    assert len(held.book) == 0
    assert held.failures() == 0


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_that_fails_stops_no_other(
    hold: Hold, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = await hold(step)
    await held.session.close()
    assert len(held.book) == 0
    undone = {name for name, done in held.released().items() if not done}
    assert undone == {step} - {"worker.detach"}
    assert f"{step} failed, as asked" in caplog.text
    assert held.failures() == 1


async def test_even_when_every_step_fails_the_place_is_free_and_each_is_logged(
    hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    held = await hold(*STEPS)
    await held.session.close()
    assert len(held.book) == 0
    assert [step for step in STEPS if f"{step} failed, as asked" not in caplog.text] == []


async def test_a_connection_that_never_closes_is_given_up(
    hold: Hold, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await hold()

    async def hang() -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(session_module, "CLOSE_S", 0.05)
    monkeypatch.setattr(held.session.pc, "close", hang)
    with caplog.at_level(logging.WARNING):
        await held.session.close()
    assert len(held.book) == 0
    assert "took too long to close" in caplog.text


async def test_a_session_whose_life_failed_is_released_too(
    hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    held = await hold("pc.close")
    held.session.settings = None  # type: ignore[assignment]  # its first step needs them
    await held.session.close()
    assert len(held.book) == 0
    for said in ("'NoneType' object has no attribute", "pc.close failed, as asked"):
        assert said in caplog.text


async def test_the_place_is_free_even_if_the_service_fails_to_take_note() -> None:
    service = AvatarService(FakeEngine(side=64), ServerSettings())
    await service.start(IMAGE, "Test")

    def fail(value: float) -> None:
        raise RuntimeError("as asked")

    session, _ = await service.open_session(await offer_sdp(), "default")
    service.metrics.sessions.set = fail  # type: ignore[method-assign]
    await session.close()
    assert len(service.sessions) == 0
    await service.stop()


async def test_a_session_that_fails_to_close_keeps_the_server_from_nothing() -> None:
    service = AvatarService(FakeEngine(side=64), ServerSettings())
    await service.start(IMAGE, "Test")

    async def fail() -> None:
        raise RuntimeError("as asked")

    service.sessions.close_all = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="as asked"):
        await service.stop()
    assert not service.worker.alive
    assert not [t for t in threading.enumerate() if t.name.startswith("enroll")]
