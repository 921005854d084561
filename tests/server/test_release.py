"""Whatever goes wrong while a session is released: the rest is released and its place is free."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import pytest

from server.errors import ApiError
from server.live.clips import Chunk
from server.live.limits import SessionBook
from server.live.outlet import Outlet
from server.live.session import Session
from server.live.surroundings import SessionOptions, Surroundings
from server.live.worker import EngineWorker
from server.metrics import Metrics
from server.service import AvatarService
from server.settings import ServerSettings
from server.webrtc import viewer as viewer_module
from server.webrtc.signaling import BadSdp
from server.webrtc.viewer import Viewer
from tests.server.fake_engine import FakeEngine
from tests.server.live import offer_sdp, until

pytestmark = pytest.mark.timeout(20)
Hold = Callable[..., Awaitable["Held"]]
IMAGE = np.full((64, 64, 3), 77, dtype=np.uint8)
FIXED = ServerSettings(capacity=2)
STEPS = ("outlet.close", "worker.detach", "stream.close", "connection")
VIEWER_STEPS = ("session.detach", "video.stop", "audio.stop", "pc.close")


@dataclass
class Held:
    """A live session in a book, with everything that it holds."""

    session: Session
    book: SessionBook
    worker: EngineWorker
    metrics: Metrics
    outlet: Outlet
    hung_up: asyncio.Event

    def break_step(self, step: str) -> None:
        """Let a step of the release raise instead of doing its work."""

        def fail(*args: object) -> None:
            raise ConnectionError(f"{step} failed, as asked")

        async def fail_later() -> None:
            fail()

        owners = {"outlet": self.outlet, "worker": self.worker, "stream": self.session.stream}
        if step == "connection":
            self.session.on_close.insert(0, fail_later)
        else:
            owner, method = step.split(".")
            setattr(owners[owner], method, fail)

    def released(self) -> dict[str, bool]:
        """Which steps of the release have done their work."""
        self.session.stream.push(Chunk(np.ones(960, np.int16), 0, None, 0.0))
        return {
            "outlet.close": self.outlet.closed,
            "stream.close": self.session.stream.deadline() is None,
            "connection": self.hung_up.is_set(),
        }

    def failures(self) -> float | None:
        return self.metrics.registry.get_sample_value("portraittalk_sessions_failed_total")


@pytest.fixture
async def hold() -> AsyncIterator[Hold]:
    """Makes a live session of which these steps fail."""
    engine, metrics = FakeEngine(side=64), Metrics()
    worker = EngineWorker(engine)
    worker.start()
    made: list[Held] = []

    async def make_held(*broken: str) -> Held:
        book, state = SessionBook(1), engine.start(engine.enroll(IMAGE))
        shared = Surroundings(FIXED, worker, metrics)

        async def make() -> Session:
            options = SessionOptions()
            return Session(shared, state, options, admit=book.admit, on_closed=book.forget)

        session = await book.open(make)
        held = Held(session, book, worker, metrics, Outlet(), asyncio.Event())
        made.append(held)

        async def hang_up() -> None:
            held.hung_up.set()

        session.on_close.append(hang_up)
        assert session.attach(held.outlet)
        assert (len(book), book.live) == (1, 1)
        await held.outlet.sound()
        for step in broken:
            held.break_step(step)
        return held

    yield make_held
    vars(worker).pop("detach", None)
    for held in made:  # the engine thread must end without what was broken
        vars(held.session.stream).pop("close", None)
    await asyncio.to_thread(worker.stop)


async def test_a_session_gives_everything_back(hold: Hold) -> None:
    held = await hold()
    await held.session.close()
    assert all(held.released().values())
    assert (len(held.book), held.book.live) == (0, 0)
    assert held.failures() == 0
    assert held.session.line.intake is None
    assert held.worker._streams == []


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_that_fails_stops_no_other(
    hold: Hold, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = await hold(step)
    await held.session.close()
    assert (len(held.book), held.book.live) == (0, 0)
    undone = {name for name, done in held.released().items() if not done}
    assert undone == {step} - {"worker.detach", "connection"}
    assert f"{step} failed, as asked" in caplog.text
    assert held.failures() == 1


async def test_even_when_every_step_fails_the_place_is_free_and_each_is_logged(
    hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    held = await hold(*STEPS)
    await held.session.close()
    assert (len(held.book), held.book.live) == (0, 0)
    assert [step for step in STEPS if f"{step} failed, as asked" not in caplog.text] == []


async def test_a_session_whose_life_failed_is_released_too_and_says_so(
    hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    held = await hold("connection")
    told: list[dict[str, object]] = []
    held.session.events.subscribe(lambda event: told.append(event.message()))
    held.session.line.intake = "broken"  # type: ignore[assignment]
    await until(lambda: len(held.book) == 0, 5)
    assert told[-1] == {"type": "closing", "reason": "failed"}
    for said in ("'str' object has no attribute", "connection failed, as asked"):
        assert said in caplog.text
    assert held.failures() == 1


# Viewers


@pytest.fixture
async def service() -> AsyncIterator[AvatarService]:
    service = AvatarService(FakeEngine(side=64), FIXED)
    await service.start(IMAGE, "Test")
    yield service
    await service.stop()


async def test_a_connection_that_never_closes_is_given_up(
    service: AvatarService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = await service.offer(await offer_sdp(), SessionOptions(), "")
    pc = service.find_viewer(session.id).pc
    close = pc.close

    async def hang() -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(viewer_module, "CLOSE_S", 0.05)
    monkeypatch.setattr(pc, "close", hang)
    with caplog.at_level(logging.WARNING):
        await session.close()
    await close()
    assert len(service.sessions) == 0
    assert "took too long to close" in caplog.text


@pytest.mark.parametrize("step", VIEWER_STEPS)
async def test_a_viewer_gives_back_the_rest_whatever_fails(
    service: AvatarService, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, _ = await service.offer(await offer_sdp(), SessionOptions(), "")
    viewer = service.find_viewer(session.id)
    close = viewer.pc.close

    def fail(*args: object, **more: object) -> None:
        raise ConnectionError(f"{step} failed, as asked")

    async def fail_later() -> None:
        fail()

    owner, method = step.split(".")
    owners = {"session": session, "pc": viewer.pc, **viewer._tracks}
    setattr(owners[owner], method, fail_later if owner == "pc" else fail)
    await viewer.close()
    await session.close()
    assert len(service.sessions) == 0
    undone = {
        "pc.close": viewer.pc.connectionState != "closed",
        **{f"{kind}.stop": t.readyState != "ended" for kind, t in viewer._tracks.items()},
    }
    assert {name for name, left in undone.items() if left} == {step} - {"session.detach"}
    assert f"{step} failed, as asked" in caplog.text
    assert session.on_close == []
    await close()


async def test_a_viewer_of_a_session_that_is_over_hangs_up_by_itself(
    service: AvatarService,
) -> None:
    session = await service.open_session(SessionOptions())
    await session.close()
    viewer = Viewer(session)
    await asyncio.wait_for(viewer.close(), 5)
    assert viewer.pc.connectionState == "closed"
    assert session.on_close == []


async def test_a_session_that_ends_while_its_offer_is_answered_leaves_nothing(
    service: AvatarService, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await service.open_session(SessionOptions())
    answer = Viewer.answer

    async def slowly(self: Viewer, sdp: str) -> str:
        await session.close("client")
        return await answer(self, sdp)

    monkeypatch.setattr(Viewer, "answer", slowly)
    with pytest.raises(Exception, match=r"over|closed|used"):
        await service.join(session.id, await offer_sdp())
    assert (len(service.sessions), service._viewers) == (0, {})


async def test_of_viewers_that_come_back_at_the_same_time_one_stays(
    service: AvatarService,
) -> None:
    session, _ = await service.offer(await offer_sdp(), SessionOptions(), "")
    offers = [await offer_sdp() for _ in range(3)]
    await asyncio.gather(*(service.resume(session.token, sdp) for sdp in offers))
    stays = [service.find_viewer(session.id).close]
    await until(lambda: session.on_close == stays, 5)  # the others hang up beside
    with pytest.raises(ApiError, match="over"):
        await service.resume("nobody", offers[0])
    with pytest.raises(BadSdp):
        await service.resume(session.token, "v=0")
    assert session.on_close == [service.find_viewer(session.id).close] == stays


async def test_the_place_is_free_even_if_the_service_fails_to_take_note(
    service: AvatarService,
) -> None:
    def fail(value: float) -> None:
        raise RuntimeError("as asked")

    session, _ = await service.offer(await offer_sdp(), SessionOptions(), "")
    service.metrics.sessions.set = fail  # type: ignore[method-assign]
    await session.close()
    assert len(service.sessions) == 0


async def test_a_session_that_fails_to_close_keeps_the_server_from_nothing() -> None:
    service = AvatarService(FakeEngine(side=64), FIXED)
    await service.start(IMAGE, "Test")

    async def fail(reason: str) -> None:
        raise RuntimeError("as asked")

    service.sessions.close_all = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="as asked"):
        await service.stop()
    assert not service.worker.alive
    assert not [t for t in threading.enumerate() if t.name.startswith("enroll")]
