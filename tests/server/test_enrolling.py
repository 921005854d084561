"""Pictures are enrolled beside the streams, one at a time."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from server.enrolling import MOST
from server.live.clips import Chunk
from server.live.worker import WorkerBusy, WorkerStopped
from server.service import AvatarService
from server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.pictures import encoded, photo
from tests.server.test_engine_stream import Bench, ramp

pytestmark = pytest.mark.timeout(20)
UPLOAD = encoded(photo(), "PNG")
PORTRAIT = np.full((96, 96, 3), (200, 150, 90), dtype=np.uint8)


async def test_a_stream_does_not_wait_for_pictures() -> None:
    engine = FakeEngine(enroll_seconds=0.25, side=64)
    service = AvatarService(engine, ServerSettings())
    await service.start(PORTRAIT, "Test")
    bench = Bench(engine)
    service.worker.attach(bench.stream)
    began = time.monotonic()
    uploads = [asyncio.ensure_future(service.enroller.enroll(UPLOAD)) for _ in range(3)]
    for i in range(50):
        await asyncio.sleep(max(0.0, began + 0.02 * i - time.monotonic()))
        bench.stream.push(Chunk(ramp(i * 960, 960), i * 960, None, time.monotonic()))
        service.worker.wake()
    portraits = await asyncio.gather(*uploads)
    for _ in range(200):  # the last sound is only just handed over
        if len(bench.pictures) == 23:
            break
        await asyncio.sleep(0.01)
    await service.stop()
    assert len({portrait.id for portrait in portraits}) == 3
    assert len(bench.pictures) == 23
    assert max(picture.queued_s for picture in bench.pictures) < 0.1  # not the 250 ms of a picture


async def test_pictures_are_enrolled_one_at_a_time_off_the_engine_thread() -> None:
    threads: list[str] = []
    busy = threading.Lock()

    class Watching(FakeEngine):
        def enroll(self, image: np.ndarray, *, face: int | None = None) -> np.ndarray:
            assert busy.acquire(blocking=False)
            threads.append(threading.current_thread().name)
            try:
                return super().enroll(image)
            finally:
                busy.release()

    service = AvatarService(Watching(enroll_seconds=0.05, side=64), ServerSettings())
    await service.start(PORTRAIT, "Test")
    await asyncio.gather(*(service.enroller.enroll(UPLOAD) for _ in range(MOST)))
    await service.stop()
    assert len(threads) == 1 + MOST
    assert "engine" not in threads


async def test_too_many_pictures_are_asked_to_come_again() -> None:
    service = AvatarService(FakeEngine(enroll_seconds=0.05, side=64), ServerSettings())
    await service.start(PORTRAIT, "Test")
    uploads = [asyncio.ensure_future(service.enroller.enroll(UPLOAD)) for _ in range(MOST)]
    await asyncio.sleep(0)
    with pytest.raises(WorkerBusy, match="4 pictures"):
        await service.enroller.enroll(UPLOAD)
    await asyncio.gather(*uploads)
    await service.stop()


async def test_pictures_that_wait_when_the_server_stops_are_told_so() -> None:
    service = AvatarService(FakeEngine(enroll_seconds=0.2, side=64), ServerSettings())
    await service.start(PORTRAIT, "Test")
    uploads = [asyncio.ensure_future(service.enroller.enroll(UPLOAD)) for _ in range(3)]
    await asyncio.sleep(0.05)  # the first is being looked at
    await service.stop()
    assert (await uploads[0]).name == "Upload"
    for upload in uploads[1:]:
        with pytest.raises(WorkerStopped, match="the server stops"):
            await upload


async def test_a_cancelled_upload_stays_cancelled() -> None:
    service = AvatarService(FakeEngine(enroll_seconds=0.1, side=64), ServerSettings())
    await service.start(PORTRAIT, "Test")
    upload = asyncio.ensure_future(service.enroller.enroll(UPLOAD))
    await asyncio.sleep(0.02)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    await service.stop()
