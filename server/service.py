"""What one process serves: its engine threads, portraits and sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.offline.credentials import MISSING, Credentials
from engine.types import Engine, RgbImage
from server.audit import AuditLog
from server.capacity import Capacity, measure
from server.enrolling import Enroller
from server.errors import ApiError
from server.heap import give_memory_back
from server.live.beeps import BeepLog
from server.live.frame_log import FrameLog
from server.live.limits import SessionBook
from server.live.moods import MoodFollower
from server.live.session import Session
from server.live.surroundings import SessionOptions, Surroundings
from server.live.worker import EngineWorker
from server.metrics import Metrics
from server.portraits import Portrait, PortraitRegistry
from server.resources import ResourceBook
from server.sending.senders import Senders
from server.settings import ServerSettings
from server.trust.access import Gate
from server.webrtc.signaling import Role, check_offer, configure_library
from server.webrtc.viewer import Viewer

log = logging.getLogger(__name__)
DELETED = "portrait_deleted"  # why a session ends that shows one
CAPACITY_S = 1.0
MakeViewer = Callable[[Session], Viewer]  # a door's own kind, with its data channels
Follow = Callable[[Session], object]  # what is done with each new session


def signing(settings: ServerSettings) -> Credentials | None:
    """What published files are signed with; None, and the log says so: nothing.

    Raises:
        BackendUnavailable, ConfigError: the certificate that is set cannot be used.
    """
    files = (settings.c2pa_certificate, settings.c2pa_key)
    own = [Path(file) if file else None for file in files]
    if (credentials := Credentials.chosen(*own)) is None:
        log.warning("%s", MISSING)
    return credentials


class AvatarService:
    """Everything one process serves."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.settings = settings
        self.worker = EngineWorker(engine)
        self.metrics = Metrics()
        self.gate = Gate(settings)
        self.credentials = signing(settings) if settings.publish_to else None
        self.audit = AuditLog(settings.audit_log, aloud=bool(settings.auth_secret))
        self.portraits = PortraitRegistry(settings.portraits_kept, note=self.audit.portrait)
        self.sessions = SessionBook(settings.max_sessions, settings.offers_per_address)
        self.resources = ResourceBook()
        self.senders = Senders()
        self._viewers: dict[str, Viewer] = {}  # who is heard in each session
        self._leaving: set[asyncio.Future[None]] = set()  # viewers whose place was taken
        self.followers: list[Follow] = [
            lambda s: MoodFollower(s, self._read_prompt),
            self.audit.follow,
        ]
        self._looking: asyncio.TimerHandle | None = None
        self._sweeping = False  # a sweep is to come
        self.enroller = Enroller(self.worker, self.portraits)
        self.beeps = BeepLog() if settings.frame_code else None
        self.frames = FrameLog() if settings.frame_code else None
        self._shared = Surroundings(settings, self.worker, self.metrics, self.beeps, self.frames)
        self.mark_of = self._shared.mark_of
        self.capacity = Capacity(settings.max_sessions, settings.capacity)
        configure_library(settings)

    async def start(self, default: RgbImage, name: str) -> None:
        """Start the engine threads and enrol the bundled portrait (H, W, 3) under `name`.

        Raises:
            PortraitRefused: there is no usable face.
        """
        self.worker.start()
        portrait, engine = await self.enroller.enroll_default(default, name), self.worker.engine
        if not self.settings.capacity:
            self.capacity.measured(
                await self.worker.call(lambda: measure(engine, portrait.identity))
            )
        self._offer_places()

    async def stop(self) -> None:
        """Close all sessions, then the engine threads, each whatever another raises."""
        if self._looking is not None:
            self._looking.cancel()
        async with contextlib.AsyncExitStack() as stack:
            then, beside = stack.push_async_callback, asyncio.to_thread  # the last one first
            stack.callback(self.audit.close)
            then(beside, self.enroller.stop)
            then(beside, self._shared.converter.stop)
            then(beside, self.worker.stop)
            await self.sessions.close_all("server_stopping")

    def _offer_places(self) -> None:
        """Adapt the number of places to what the engine takes; again and again while it runs."""
        self.capacity.watching = self.resources.watching(self.sessions)
        self.capacity.look(time.monotonic(), self.worker.busy_s, self.worker.frames)
        self.sessions.max_sessions = self.capacity.places
        self.metrics.places.set(self.capacity.places)
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(CAPACITY_S, self._offer_places)

    async def delete_portrait(self, portrait: Portrait) -> None:
        """Forget a portrait and its consent record; sessions that show it end."""
        self.portraits.delete(portrait)
        for session in [each for each in self.sessions if each.portrait_id == portrait.id]:
            await session.close(DELETED)

    async def open_session(self, options: SessionOptions, address: str = "") -> Session:
        """Make a session that waits for its first receiver; it takes no place until then.

        Raises:
            ApiError, ServerFull, TooManyOffers: it cannot be; found before any work is done.
            PromptRefused, WorkerBusy, WorkerStopped: nor can it be.
        """
        portrait = self.find_portrait(options.portrait_id, options.subject)
        session = await self.sessions.open(lambda: self._make_session(portrait, options), address)
        self.metrics.sessions.set(len(self.sessions))
        return session

    async def connect(self, viewer: Viewer, sdp: str) -> str:
        """Answer the offer of a new viewer; one whose offer cannot be used (`BadSdp`) is closed."""
        answered = False
        try:
            answer = await viewer.answer(sdp)
            answered = True
        finally:
            if not answered:
                await viewer.close()
        return answer

    async def offer(
        self,
        sdp: str,
        options: SessionOptions,
        address: str,
        make: MakeViewer = Viewer,
        *,
        role: Role = "talk",
    ) -> tuple[Session, str]:
        """Open a session on the offer of its viewer; returns it with the answer.

        Raises:
            BadSdp, and what `open_session` raises: nothing is left behind.
        """
        check_offer(sdp, role)
        session = await self.open_session(options, address)
        answered = False
        try:
            answer = await self._see(session, sdp, make)
            answered = True
        finally:
            if not answered:
                await session.close("failed")
        return session, answer

    async def join(
        self, session_id: str, sdp: str, make: MakeViewer = Viewer
    ) -> tuple[Session, str]:
        """Connect the viewer of a session that was made before.

        Raises:
            ApiError: unknown_session.
            BadSdp: the offer cannot be used; the session goes on.
        """
        check_offer(sdp)
        session = self.find_session(session_id)
        return session, await self._see(session, sdp, make)

    async def resume(self, token: str, sdp: str, make: MakeViewer = Viewer) -> tuple[Session, str]:
        """Connect the viewer of a session anew, in the place of the one that was lost.

        Raises:
            ApiError: unknown_session.
            BadSdp: the offer cannot be used; the session goes on.
        """
        check_offer(sdp)
        session = self.sessions.by_token(token)
        if session is None:
            raise ApiError(404, "unknown_session", "this session is over")
        return session, await self._see(session, sdp, make, taken="resumed")

    async def _see(
        self, session: Session, sdp: str, make: MakeViewer, *, taken: str = "replaced"
    ) -> str:
        """Connect the viewer whose microphone is heard; one before it has to go, as `taken`."""
        with session.hold():
            viewer = make(session)
            answer = await self.connect(viewer, sdp)
            if session.closed_for is not None:  # while the offer was answered
                raise ApiError(404, "unknown_session", "this session is over")
            before, self._viewers[session.id] = self._viewers.get(session.id), viewer
            if before is not None:  # it hangs up beside: who comes back waits for nobody
                leaving = asyncio.ensure_future(before.close(taken))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        return answer

    async def express(self, session: Session, prompt: str) -> str:
        """Change what a session's portrait expresses; returns the prompt as it was understood.

        Raises:
            PromptRefused: the profile cannot show it; nothing is changed.
            WorkerBusy, WorkerStopped: the engine cannot be asked.
        """
        expressed = await self._read_prompt(prompt)
        session.express(expressed, prompt)
        return str(expressed)

    def show_portrait(self, session: Session, portrait_id: str) -> None:
        """Show another portrait in an open session; raises `ApiError` unknown_portrait."""
        portrait = self.find_portrait(portrait_id, session.subject)
        session.show_portrait(portrait_id, portrait.identity)

    async def _read_prompt(self, prompt: str) -> Any:
        engine = self.worker.engine  # reading may mean running a text encoder
        return await self.worker.call(lambda: engine.read_prompt(prompt))

    def find_portrait(self, portrait_id: str, subject: str = "") -> Portrait:
        """Return a portrait that `subject` may show; raises `ApiError` unknown_portrait."""
        portrait = self.portraits.get(portrait_id, subject)
        if portrait is None:
            raise ApiError(404, "unknown_portrait", "this portrait is not known here any more")
        return portrait

    def find_session(self, session_id: str) -> Session:
        """Return an open session; raises `ApiError` unknown_session."""
        session = self.sessions.get(session_id)
        if session is None:
            raise ApiError(404, "unknown_session", "this session is over")
        return session

    def connected(self, session: Session) -> bool:
        """Whether the viewer that is heard is there, or on its way."""
        viewer = self._viewers.get(session.id)
        return viewer is not None and not viewer.over

    def find_viewer(self, session_id: str) -> Viewer:
        """Return the viewer of an open session that is heard; raises `ApiError` unknown_session."""
        viewer = self._viewers.get(session_id)
        if viewer is None:
            raise ApiError(404, "unknown_session", "this session is over")
        return viewer

    async def _make_session(self, portrait: Portrait, options: SessionOptions) -> Session:
        expressed = await self._read_prompt(options.prompt) if options.prompt else None
        engine, seed = self.worker.engine, secrets.randbits(31)
        state = await self.worker.call(lambda: engine.start(portrait.identity, seed=seed))
        session = Session(
            self._shared,
            state,
            options,
            admit=self.sessions.admit,
            on_closed=self._session_closed,
        )
        for follow in self.followers:
            follow(session)
        if expressed is not None:
            session.express(expressed, options.prompt)
        return session

    def _session_closed(self, session: Session) -> None:
        self.sessions.forget(session)
        self._viewers.pop(session.id, None)
        self.metrics.sessions.set(len(self.sessions))
        if not len(self.sessions) and not self._sweeping:  # the library leaves cycles behind
            self._sweeping = True
            asyncio.get_running_loop().call_later(1.0, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        if not len(self.sessions):
            give_memory_back()
