"""A session in a video call: its picture on a virtual camera, its voice on a loopback sound device.

`serve --camera auto --loopback NAME` opens one session for it, which every other door can speak to;
with `--microphone default` the face also says what this machine's microphone hears.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Self

import av
import numpy as np
import typer
from av.video.reformatter import VideoReformatter

from engine.config import FPS
from engine.errors import ConfigError
from server.live.session import Session
from server.live.surroundings import SessionOptions
from server.sending.muxing import fitted
from server.sending.senders import Sender, SendingFailed
from server.service import AvatarService
from server.settings import ServerSettings
from server.sound.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Pcm48

MISSING = "a video call needs the extra camera: pip install 'portraittalk[camera]'"
LIMIT = SOUND_RATE_HZ // 5  # samples that wait for the sound device
CUSHION = SOUND_RATE_HZ // 25  # are waited for before it is played
PERIOD_MS = 1000 * PACKET_SAMPLES // SOUND_RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDevices:
    """What a call is made with: `auto` or `default`, or a name, or nothing at all.

    `backends` are miniaudio's; none: whichever the system has.
    """

    camera: str
    microphone: str = ""
    loopback: str = ""
    backends: Sequence[Any] = ()

    @classmethod
    def chosen(cls, settings: ServerSettings) -> Self:
        """Those of the settings."""
        return cls(
            camera=settings.camera,
            microphone=settings.microphone,
            loopback=settings.loopback,
        )


def open_camera(name: str, width: int, height: int) -> Any:
    """Open the virtual camera `[backend:][device]`; raises `ConfigError`."""
    try:
        import pyvirtualcam
        from pyvirtualcam.camera import BACKENDS
    except ImportError:
        raise ConfigError(MISSING) from None
    backend, _, device = name.partition(":")
    if backend not in BACKENDS:
        backend, device = "", "" if name == "auto" else name
    try:
        return pyvirtualcam.Camera(
            width, height, FPS, device=device or None, backend=backend or None
        )
    except (RuntimeError, ValueError, OSError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"no virtual camera: {said}; README says how to set one up") from None


def open_sound(kind: Literal["microphone", "loopback"], name: str, backends: Sequence[Any]) -> Any:
    """Open the sound device with `name` in its own; raises `ConfigError`."""
    try:
        import miniaudio
    except ImportError:
        raise ConfigError(MISSING) from None
    system = miniaudio.Devices(list(backends) or None)
    if system.backend == "Null" and not backends:
        raise ConfigError(f"{kind}: this machine has no sound device")
    hears = kind == "microphone"
    found = system.get_captures() if hears else system.get_playbacks()
    fitting = [d["id"] for d in found if name.lower() in d["name"].lower()]
    if name != "default" and not fitting:
        names = ", ".join(repr(device["name"]) for device in found) or "none"
        raise ConfigError(f"{kind}: no sound device is called {name!r}; there are: {names}")
    try:
        return (miniaudio.CaptureDevice if hears else miniaudio.PlaybackDevice)(
            nchannels=1,
            sample_rate=SOUND_RATE_HZ,
            buffersize_msec=PERIOD_MS,
            device_id=None if name == "default" else fitting[0],
            backends=list(backends) or None,
        )
    except miniaudio.MiniaudioError as error:
        raise ConfigError(f"{kind}: {name!r} cannot be used: {error}") from None


def check_devices(devices: CallDevices) -> None:
    """Raise `ConfigError` now for what would fail once the engine is loaded."""
    open_camera(devices.camera, 512, 512).close()
    if devices.microphone:
        open_sound("microphone", devices.microphone, devices.backends).close()
    if devices.loopback:
        open_sound("loopback", devices.loopback, devices.backends).close()


class SoundBuffer:
    """Between the event loop and the thread of a sound device.

    Bound: 200 ms. Overflow: the oldest goes. When it runs empty, silence is played until 40 ms are there.
    """

    def __init__(self) -> None:
        self._pcm: Pcm48 = np.zeros(0, np.int16)
        self._flowing = False
        self._lock = threading.Lock()

    def put(self, pcm: Pcm48) -> None:
        """Add sound (N,)."""
        with self._lock:
            self._pcm = np.concatenate([self._pcm, pcm])[-LIMIT:]
            self._flowing |= len(self._pcm) >= CUSHION

    def take(self, count: int) -> Pcm48:
        """Return the next samples (count,)."""
        out = np.zeros(count, np.int16)
        with self._lock:
            if self._flowing:
                got, self._pcm = self._pcm[:count], self._pcm[count:]
                out[: len(got)] = got
                self._flowing = len(got) == count
        return out

    def player(self) -> Generator[bytes, int, None]:
        """What a playback device asks, already started."""

        def play() -> Generator[bytes, int, None]:
            count = yield b""
            while True:
                count = yield self.take(count).tobytes()

        started = play()
        next(started)
        return started


class Microphone:
    """Hands what a capture device hears to a session; made on the event loop."""

    def __init__(self, session: Session) -> None:
        self._session, self._pts = session, 0
        self._loop = asyncio.get_running_loop()
        session.microphone = self

    def recorder(self) -> Generator[None, bytes, None]:
        """What a capture device fills, already started."""

        def record() -> Generator[None, bytes, None]:
            while True:
                pcm = np.frombuffer((yield), np.int16).copy()
                self._loop.call_soon_threadsafe(self._hear, pcm, time.monotonic())

        started = record()
        next(started)
        return started

    def _hear(self, pcm: Pcm48, arrived: float) -> None:
        self._session.hear(self._pts, pcm, arrived, by=self)
        self._pts += len(pcm)


class CameraSender(Sender):
    """Shows a session on a virtual camera; its sound goes into `sound`."""

    def __init__(self, session: Session, name: str, sound: SoundBuffer | None) -> None:
        super().__init__(session, "camera", name)
        self._name, self._sound = name, sound
        self._camera: Any = None
        self._reformatter = VideoReformatter()

    async def send(self) -> None:
        """Show until the outlet is closed; raises `SendingFailed` when the camera does not take it."""
        loop = asyncio.get_running_loop()
        voice = asyncio.create_task(self._speak())
        with ThreadPoolExecutor(1, thread_name_prefix="camera") as thread:
            try:
                while True:
                    frame = (await self.outlet.picture()).frame
                    await loop.run_in_executor(thread, self._show, frame)
            except EOFError:
                return
            except (ConfigError, RuntimeError) as error:
                raise SendingFailed(str(error)) from None
            finally:
                voice.cancel()
                if self._camera is not None:
                    await loop.run_in_executor(thread, self._camera.close)

    async def _speak(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                pcm = (await self.outlet.sound()).pcm
                if self._sound is not None:
                    self._sound.put(pcm)

    def _show(self, frame: av.VideoFrame) -> None:
        if self._camera is None:
            self._camera = open_camera(self._name, frame.width, frame.height)
        camera = self._camera
        whole = fitted(frame, camera.width, camera.height, self._reformatter)
        rgb = self._reformatter.reformat(whole, format="rgb24").to_ndarray()
        camera.send(np.ascontiguousarray(rgb))


@contextlib.asynccontextmanager
async def in_call(service: AvatarService, devices: CallDevices) -> AsyncIterator[Session]:
    """A session on these devices inside the block; raises `ConfigError`, and what opening one raises."""
    options = SessionOptions(voice="both" if devices.microphone else "assistant")
    session = await service.open_session(options)
    sound = SoundBuffer() if devices.loopback else None
    with contextlib.ExitStack() as stack:
        if sound is not None:
            speaker = open_sound("loopback", devices.loopback, devices.backends)
            stack.enter_context(speaker).start(sound.player())
        if devices.microphone:
            ear = open_sound("microphone", devices.microphone, devices.backends)
            stack.enter_context(ear).start(Microphone(session).recorder())
        service.senders.start(CameraSender(session, devices.camera, sound))
        typer.echo(f"in the call: session {session.id} on camera {devices.camera}")
        try:
            yield session
        finally:
            await session.close("server_stopping")
