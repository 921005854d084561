"""Pictures are read and enrolled beside the engine threads, one at a time: no stream waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from engine.face.image_file import Picture, read_picture
from engine.types import RgbImage
from server.consents import Consent
from server.live.worker import EngineWorker, WorkerBusy, WorkerStopped
from server.portraits import Portrait, PortraitRegistry, enroll_picture
from server.priority import give_way

MOST = 4  # uploads being worked on; one more is asked to come again


class Enroller:
    """Makes portraits of pictures and puts them into the registry."""

    def __init__(self, worker: EngineWorker, portraits: PortraitRegistry) -> None:
        self.waiting = 0  # uploads that are worked on
        self._worker, self._portraits = worker, portraits
        self._thread = ThreadPoolExecutor(1, "enroll", initializer=give_way)

    async def enroll(
        self,
        data: bytes,
        subject: str = "",
        face: int | None = None,
        consent: Consent | None = None,
        portrait_id: str = "",
    ) -> Portrait:
        """Register an image file, which is then that of `subject`; without an id it gets one.

        Of several faces number `face` talks, from the left and from 1; without it the largest.

        Raises:
            BadImage, ImageTooLarge, PortraitRefused, PortraitsFull, WorkerBusy: no.
            AuditFailed, WorkerStopped: nor is it possible.
        """
        self._portraits.check_room(subject)
        if self.waiting >= MOST:
            raise WorkerBusy(f"{self.waiting} pictures are being looked at; try again soon")
        self.waiting, engine = self.waiting + 1, self._worker.engine
        try:
            made = await self._beside(
                lambda: enroll_picture(engine, "Upload", read_picture(data), face, owner=subject)
            )
        finally:
            self.waiting -= 1
        portrait = replace(made, consent=consent)
        if portrait_id:  # it has one: it was enrolled elsewhere
            portrait = replace(portrait, id=portrait_id)
        self._portraits.add(portrait)
        return portrait

    async def enroll_default(self, rgb: RgbImage, name: str) -> Portrait:
        """Register the bundled portrait (H, W, 3); raises `PortraitRefused`."""
        engine, picture = self._worker.engine, Picture(rgb)
        portrait = await self._beside(lambda: enroll_picture(engine, name, picture, default=True))
        self._portraits.add(portrait)
        return portrait

    def stop(self) -> None:
        """Finish what is in hand, and let go of what waits."""
        self._thread.shutdown(cancel_futures=True)

    async def _beside(self, work: Callable[[], Portrait]) -> Portrait:
        task = asyncio.current_task()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise
            raise WorkerStopped("the server stops; the picture was not looked at") from None
