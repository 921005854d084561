"""What one process serves: one engine thread, its portraits and its sessions."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.face.image_file import decode_image
from engine.types import Engine, RgbImage
from server.beeps import BeepLog
from server.errors import ApiError
from server.limits import SessionBook
from server.metrics import Metrics
from server.portraits import Portrait, PortraitRegistry, make_portrait
from server.session import Session
from server.settings import ServerSettings
from server.signaling import check_offer, configure_library
from server.worker import EngineWorker, WorkerBusy, WorkerStopped

MAX_ENROLLING = 4  # uploads being worked on; one more is asked to come again


class AvatarService:
    """Everything one process serves."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.settings = settings
        self.worker = EngineWorker(engine)
        self.metrics = Metrics()
        self.portraits = PortraitRegistry(settings.portraits_kept)
        self.sessions = SessionBook(settings.max_sessions)
        self._enrolling = 0
        # Pictures are read and enrolled beside the engine thread, one at a time: no stream waits.
        self._enroller = ThreadPoolExecutor(1, thread_name_prefix="enroll")
        self.beeps = BeepLog() if settings.frame_code else None
        configure_library(settings)

    async def start(self, default: RgbImage, name: str) -> None:
        """Start the engine thread and enrol the bundled portrait (H, W, 3) under `name`.

        Raises:
            PortraitRefused: there is not exactly one usable face.
        """
        self.worker.start()
        self.portraits.add(await self._beside(lambda: self._enroll(name, default, bundled=True)))

    async def stop(self) -> None:
        """Close all sessions, then the engine thread, each whatever another raises."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(
                asyncio.to_thread, self._enroller.shutdown, cancel_futures=True
            )
            stack.push_async_callback(asyncio.to_thread, self.worker.stop)
            await self.sessions.close_all()

    async def enroll(self, data: bytes) -> Portrait:
        """Register an image file.

        Raises:
            BadImage, ImageTooLarge, PortraitRefused, WorkerBusy, WorkerStopped: it cannot be.
        """
        if self._enrolling >= MAX_ENROLLING:
            raise WorkerBusy(f"{self._enrolling} pictures are being looked at; try again soon")
        self._enrolling += 1
        try:
            portrait = await self._beside(lambda: self._enroll("Upload", decode_image(data)))
        finally:
            self._enrolling -= 1
        self.portraits.add(portrait)
        return portrait

    async def _beside(self, work: Callable[[], Portrait]) -> Portrait:
        task = asyncio.current_task()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._enroller, work)
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise
            raise WorkerStopped("the server stops; the picture was not looked at") from None

    def _enroll(self, name: str, rgb: RgbImage, *, bundled: bool = False) -> Portrait:
        return make_portrait(name, rgb, self.worker.engine.enroll(rgb), default=bundled)

    async def open_session(
        self, sdp: str, portrait_id: str, prompt: str = ""
    ) -> tuple[Session, str]:
        """Open a session on an offer and return it with the answer.

        Raises:
            BadSdp, ApiError, ServerFull: it cannot be; found before any work is done.
            PromptRefused, WorkerBusy, WorkerStopped: nor can it be.
        """
        check_offer(sdp)
        portrait = self.find_portrait(portrait_id)
        session = await self.sessions.open(lambda: self._make_session(portrait, prompt))
        self.metrics.sessions.set(len(self.sessions))
        answered = False
        try:
            answer = await session.answer(sdp)
            answered = True
        finally:
            if not answered:
                await session.close()
        return session, answer

    async def set_prompt(self, session: Session, prompt: str) -> str:
        """Change what a session's portrait expresses; returns the prompt as it was understood.

        Raises:
            PromptRefused: the profile cannot show it; nothing is changed.
            WorkerBusy, WorkerStopped: the engine cannot be asked.
        """
        expressed = await self._read_prompt(prompt)
        session.stream.set_prompt(expressed)
        return str(expressed)

    async def _read_prompt(self, prompt: str) -> Any:
        engine = self.worker.engine  # reading may mean running a text encoder
        return await self.worker.call(lambda: engine.read_prompt(prompt))

    def find_portrait(self, portrait_id: str) -> Portrait:
        """Return a portrait; raises `ApiError` unknown_portrait."""
        portrait = self.portraits.get(portrait_id)
        if portrait is None:
            raise ApiError(404, "unknown_portrait", "this portrait is not known here any more")
        return portrait

    def find_session(self, session_id: str) -> Session:
        """Return an open session; raises `ApiError` unknown_session."""
        session = self.sessions.get(session_id)
        if session is None:
            raise ApiError(404, "unknown_session", "this session is over")
        return session

    async def _make_session(self, portrait: Portrait, prompt: str) -> Session:
        expressed = await self._read_prompt(prompt) if prompt else None
        engine, seed = self.worker.engine, secrets.randbits(31)
        state = await self.worker.call(lambda: engine.start(portrait.identity, seed=seed))
        session = Session(
            self.settings,
            self.worker,
            state,
            self.metrics,
            beeps=self.beeps,
            on_closed=self._session_closed,
        )
        if expressed is not None:
            session.stream.set_prompt(expressed)
        return session

    def _session_closed(self, session: Session) -> None:
        self.sessions.forget(session)
        self.metrics.sessions.set(len(self.sessions))
        if not len(self.sessions):  # the library leaves cycles behind; nobody waits for us now
            asyncio.get_running_loop().call_later(1.0, self._sweep)

    def _sweep(self) -> None:
        if not len(self.sessions):
            gc.collect()
            _give_memory_back()


def _give_memory_back() -> None:
    """Hand what is free in the C library's heaps back to the system, where it can (glibc)."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
