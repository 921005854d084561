"""One peer connection on a session: the face and its voice out, a microphone in, or one of these."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import av
from aiortc import RTCDataChannel
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.live.events import Event
from server.live.outlet import Outlet
from server.live.session import Session
from server.logs import session_id
from server.reception import Reception
from server.sound.intake import to_mono
from server.webrtc import signaling
from server.webrtc.aiortc_internals import packets_of, packets_received
from server.webrtc.control import LABEL, DataChannel
from server.webrtc.signaling import Role
from server.webrtc.tracks import AvatarAudioTrack, AvatarTrack, AvatarVideoTrack

log = logging.getLogger(__name__)
WATCH_S = 0.5
CLOSE_S = 3.0
OPEN_S = 1.0  # for a viewer that just connected to open its data channel
LAST_WORDS_S = 0.1  # for the reason of the end to reach the viewer
Channels = Callable[[RTCDataChannel], bool]
Leaving = Callable[[str], bool]


class Viewer:
    """Who receives a session over WebRTC, is heard by it, or both.

    Args:
        role: `talk`: it receives, and its microphone becomes that of the session; `call`: the same,
            perhaps without a picture; `watch`: it receives alone; `publish`: it is heard alone, and
            keeps the session while it is there.
        channels: offered every data channel first; True: it is one of a protocol of its own.
        on_leave: called with the reason before it hangs up; True: something was said that is to arrive.
    """

    def __init__(
        self,
        session: Session,
        *,
        role: Role = "talk",
        channels: Channels = lambda channel: False,
        on_leave: Leaving = lambda reason: False,
    ) -> None:
        self.session = session
        self.outlet = Outlet()
        self.pc = signaling.make_connection(session.settings)
        self.role = role
        self._channels, self._on_leave = channels, on_leave
        self._reason = "closed"
        self._tracks: dict[str, AvatarTrack] = {}
        if role != "publish":
            self._tracks["video"] = AvatarVideoTrack(self.outlet)
            self._tracks["audio"] = AvatarAudioTrack(self.outlet)
        self._control = DataChannel(self._on_message)
        if (label := session.settings.disclosed) is not None:
            self._control.send({"type": "disclosure", "synthetic": True, "label": label})
        self._mic: tuple[MediaStreamTrack, Any] | None = None
        self._connected = asyncio.Event()
        self._over = asyncio.Event()
        self._hung_up = False  # by the viewer, who will not come back
        self._listen()
        self._end_events = session.events.subscribe(self._tell)
        session.on_close.append(self.close)
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._say_failure)

    async def answer(self, sdp: str) -> str:
        """Return the answer to the viewer's offer; raises `BadSdp`."""
        codec = self.session.settings.codec
        return await signaling.answer(self.pc, sdp, self._tracks, codec, self.role)

    @property
    def waiting(self) -> bool:
        """Whether it is still to connect."""
        return not self._connected.is_set() and not self._over.is_set()

    def when_gone(self, call: Callable[[], None]) -> None:
        """Call `call` once it has hung up, whoever began."""
        self._task.add_done_callback(lambda task: call())

    @property
    def over(self) -> bool:
        """Whether it has hung up, or is about to."""
        return self._over.is_set()

    async def renegotiate(self, sdp: str) -> str:
        """Return the answer to another offer of the same connection; raises `BadSdp`."""
        return await signaling.answer_again(self.pc, sdp)

    async def close(self, reason: str = "closed") -> None:
        """Hang up and wait until it is done. May be called again."""
        if not self._over.is_set():
            self._reason = reason
            if reason != "closed":  # another viewer is heard now
                self._control.send(Event("closing", {"reason": "replaced"}).message())
        self._over.set()
        await asyncio.wait([self._task])

    def _listen(self) -> None:
        """Bind the connection's events."""

        @self.pc.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            if track.kind == "audio" and self._mic is None and self.role != "watch":
                receivers = [t.receiver for t in self.pc.getTransceivers()]
                self._mic = (track, next(r for r in receivers if r.track is track))

        @self.pc.on("datachannel")
        def on_datachannel(channel: RTCDataChannel) -> None:
            if not self._channels(channel) and channel.label == LABEL:
                self._control.attach(channel)

        @self.pc.on("connectionstatechange")
        def on_state() -> None:
            if self.pc.connectionState == "connected":
                self._connected.set()
            elif self.pc.connectionState in ("failed", "closed"):
                self._hung_up = self.pc.connectionState == "closed" and not self._over.is_set()
                self._over.set()

    def _tell(self, event: Event) -> None:
        self._control.send(event.message())
        if event.type == "closing":
            self._over.set()

    def _on_message(self, body: dict[str, Any]) -> None:
        """Understands `ping`, and `interrupt` of who is heard; anything else is ignored."""
        if body.get("type") == "interrupt" and self.role != "watch":
            self.session.interrupt()
        elif body.get("type") == "ping":
            self._control.send({"type": "pong", "t": body.get("t")})

    async def _run(self) -> None:
        """From made to hung up, whatever ends it."""
        session_id.set(self.session.id)
        try:
            await self._first(self._connected, self.session.settings.connect_timeout_s)
            if self._connected.is_set() and not self._over.is_set():
                await self._exchange()
        finally:
            async with contextlib.AsyncExitStack() as stack:  # each whatever another raises
                stack.push_async_callback(self._hang_up)
                for track in self._tracks.values():
                    stack.callback(track.stop)
                stack.push_async_callback(self._last_words)
                stack.callback(self._leave)

    async def _first(self, event: asyncio.Event, limit_s: float) -> None:
        """Wait for `event` or the end, at most `limit_s` seconds."""
        waits = [asyncio.ensure_future(e.wait()) for e in (event, self._over)]
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _exchange(self) -> None:
        """Receive and be heard, as the role is, until it is over."""
        if self.role == "publish":  # it receives nothing and takes no place
            with self.session.hold():
                await self._watch_and_hear()
        elif self.session.attach(self.outlet):
            await self._watch_and_hear()
        else:
            await self._say_why()

    async def _watch_and_hear(self) -> None:
        if self._mic is not None:
            self.session.microphone = self
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in (self._hear(), self._watch())]
            await self._over.wait()
            for task in tasks:
                task.cancel()

    async def _say_why(self) -> None:
        """Let a viewer that is sent away open its data channel, where the reason waits."""
        if self.pc.sctp is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPEN_S):
                    await self._control.opened.wait()
        await asyncio.sleep(LAST_WORDS_S)

    async def _hear(self) -> None:
        """The microphone to the session; one that is not wanted is drained."""
        if self._mic is None:
            return
        track, receiver = self._mic
        packets = packets_of(receiver)
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if not isinstance(frame, av.AudioFrame) or frame.pts is None:
                continue
            if self.session.microphone is None and self.role != "watch":
                self.session.microphone = self  # another one was heard meanwhile
            intake = self.session.line.intake
            if intake is not None and self.session.microphone is self:
                packets.arrivals = intake.arrivals  # what is missing is waited for as it says
            arrived = packets.arrived_at(frame.pts)
            self.session.hear(frame.pts, to_mono(frame), arrived, by=self)

    async def _watch(self) -> None:
        """Hang up when no packet came for `watchdog_s`, or the transport is gone."""
        transport = self.pc.getTransceivers()[0].receiver.transport
        seen, since = -1, time.monotonic()
        reception = Reception(self.pc, self.session.figures)
        while True:
            await asyncio.sleep(WATCH_S)
            await reception.update()
            received = packets_received(transport)
            now = time.monotonic()
            if received != seen:
                seen, since = received, now
            lost = now - since > self.session.settings.watchdog_s
            if transport.state in ("closed", "failed") or lost:
                self._hung_up |= transport.state == "closed"
                self._over.set()
                return

    def _say_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session %s: a viewer ended by an error", self.session.id, exc_info=error)

    def _leave(self) -> None:
        """The session gives nothing to it and hears nothing of it any more."""
        self._end_events()
        if self.session.microphone is self:
            self.session.microphone = None
        if self.close in self.session.on_close:
            self.session.on_close.remove(self.close)
        # Of who only watched nobody can say that the session is not wanted any more.
        self.session.detach(self.outlet, for_good=self._hung_up and self.role in ("talk", "call"))

    async def _last_words(self) -> None:
        """Let what was said last reach the viewer."""
        said = self._on_leave(self._reason)
        await asyncio.sleep(LAST_WORDS_S if said or self._control.open else 0)

    async def _hang_up(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.pc.close()
        except TimeoutError:
            log.warning("session %s: the connection took too long to close", self.session.id)
