"""The doors that are frameworks: real pipelines of Pipecat and LiveKit Agents around an avatar of the server.

What the browser receives is another view of the session that they speak through.
"""

from __future__ import annotations

import asyncio
import base64
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]  # (N,) at 48 kHz
CHUNK_S = 0.1  # of speech in one frame
FASTER = 10  # than it is spoken
LOUD = 0.02  # of full scale: the voice is never below it


def installed(package: str) -> str:
    """Name and version of a package."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"


def chunks(pcm: Pcm) -> list[bytes]:
    """An utterance (N,) as a TTS would give it."""
    step = int(CHUNK_S * 48_000)
    return [pcm[at : at + step].tobytes() for at in range(0, len(pcm), step)]


class Player:
    """What an output that plays in real time has played of a voice that never pauses."""

    def __init__(self) -> None:
        self._slices: list[
            tuple[float, float]
        ] = []  # when each 10 ms that was loud began and ended

    def begin(self) -> None:
        """Another utterance comes."""
        self._slices = []

    def play(self, pcm: Pcm, rate_hz: int, at: float) -> None:
        """Note sound (N,) that is played from the monotonic time `at` on."""
        size = rate_hz // 100
        for begin in range(0, len(pcm), size):
            part = pcm[begin : begin + size]
            if np.abs(part.astype(np.int32)).max() > LOUD * 32767:
                self._slices.append((at + begin / rate_hz, at + (begin + len(part)) / rate_hz))

    def heard_ms(self, until: float) -> float:
        """How much of the voice was played before that time."""
        return 1000 * sum(min(end, until) - begin for begin, end in self._slices if begin < until)


class RealtimeDoor:
    """`/v1/realtime`, without a model behind it: what is appended is said."""

    name = "Realtime"
    client = installed("openai")
    heard_ms: float | None = None

    async def open(self, url: str) -> str:
        """Open a session at the server; returns its id."""
        from openai import AsyncOpenAI

        address = url.replace("http", "ws", 1) + "/v1"
        self._client = AsyncOpenAI(
            api_key="-", base_url=f"{url}/v1", websocket_base_url=address, max_retries=0
        )
        self._manager = self._client.realtime.connect(model="portraittalk")
        self._connection = await self._manager.__aenter__()
        created: Any = await self._connection.recv()
        self._cleared: asyncio.Queue[float] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        return str(created.session.avatar["session_id"])

    async def say(self, pcm: Pcm) -> float:
        """Append an utterance (N,) at 24 kHz; returns when its first sound left."""
        began = time.time()
        for chunk in chunks(pcm):
            halved = np.frombuffer(chunk, "<i2").reshape(-1, 2).mean(axis=1).astype("<i2")
            await self._connection.input_audio_buffer.append(
                audio=base64.b64encode(halved.tobytes()).decode()
            )
            await asyncio.sleep(CHUNK_S / FASTER)
        await self._connection.input_audio_buffer.commit()
        return began

    async def interrupt(self) -> tuple[float, float | None]:
        """Cancel it; returns when, and the acknowledged position."""
        asked = time.time()
        await self._connection.response.cancel()
        return asked, await asyncio.wait_for(self._cleared.get(), 10)

    async def close(self) -> None:
        """End the session."""
        self._reading.cancel()
        await self._manager.__aexit__(None, None, None)
        await self._client.close()

    async def _read(self) -> None:
        async for event in self._connection:
            if event.type == "output_audio_buffer.cleared":
                self._cleared.put_nowait(float(event.to_dict()["audio_end_ms"]))


class PipecatDoor:
    """`PortraitTalkVideoService` before an output that plays in real time."""

    name = "Pipecat"
    client = installed("pipecat-ai")
    heard_ms: float | None = None

    async def open(self, url: str) -> str:
        """Open a session at the server; returns its id."""
        from loguru import logger
        from pipecat.pipeline.pipeline import Pipeline
        from pipecat.pipeline.worker import PipelineParams, PipelineWorker
        from pipecat.transports.base_output import BaseOutputTransport
        from pipecat.transports.base_transport import TransportParams
        from pipecat.workers.runner import WorkerRunner

        from server.doors.pipecat import PortraitTalkVideoService

        player = self._player = Player()

        class Output(BaseOutputTransport):  # type: ignore[misc]
            free = 0.0

            async def start(self, frame: Any) -> None:
                await super().start(frame)
                await self.set_transport_ready(frame)

            async def write_audio_frame(self, frame: Any) -> bool:
                now = time.monotonic()
                begin = max(self.free, now)
                player.play(np.frombuffer(frame.audio, np.int16), self.sample_rate, begin)
                self.free = begin + len(frame.audio) / 2 / self.sample_rate
                await asyncio.sleep(self.free - now)
                return True

            async def write_video_frame(self, frame: Any) -> bool:
                return True

        logger.remove()
        avatar = PortraitTalkVideoService(url=url)
        screen = TransportParams(
            audio_out_enabled=True,
            video_out_enabled=True,
            video_out_is_live=True,
            video_out_width=512,
            video_out_height=512,
            video_out_framerate=25,
        )
        self._worker = PipelineWorker(
            Pipeline([avatar, Output(screen)]),
            params=PipelineParams(audio_out_sample_rate=48_000),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
        )
        self._positions: asyncio.Queue[float] = asyncio.Queue()
        avatar.add_event_handler("on_interrupted", self._note)
        started = asyncio.Event()

        async def begun(worker: Any, frame: Any) -> None:
            started.set()

        self._worker.add_event_handler("on_pipeline_started", begun)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self._worker)
        self._run = asyncio.create_task(runner.run())
        await started.wait()
        session = avatar.session_id
        assert session is not None
        return session

    async def _note(self, avatar: Any, context: str | None, ms: float) -> None:
        self._positions.put_nowait(ms)

    async def say(self, pcm: Pcm) -> float:
        """Send an utterance (N,); returns when its first sound left."""
        from pipecat.frames.frames import TTSAudioRawFrame, TTSStartedFrame, TTSStoppedFrame

        self._player.begin()
        await self._worker.queue_frame(TTSStartedFrame())
        began = time.time()
        for data in chunks(pcm):
            await self._worker.queue_frame(TTSAudioRawFrame(data, 48_000, 1))
            await asyncio.sleep(CHUNK_S / FASTER)
        await self._worker.queue_frame(TTSStoppedFrame())
        return began

    async def interrupt(self) -> tuple[float, float | None]:
        """Cut it off; returns when, and the acknowledged position."""
        from pipecat.frames.frames import InterruptionFrame

        asked = time.time()
        await self._worker.queue_frame(InterruptionFrame())
        position = await self._positions.get()
        self.heard_ms = self._player.heard_ms(time.monotonic())
        return asked, position

    async def close(self) -> None:
        """End the session."""
        await self._worker.cancel()
        await self._run


class LiveKitDoor:
    """`PortraitTalkGenerator` driven by the real `AvatarRunner`, with real tracks in a room without a server."""

    name = "LiveKit"
    client = installed("livekit-agents")
    heard_ms: float | None = None

    async def open(self, url: str) -> str:
        """Open a session at the server; returns its id."""
        from livekit import rtc
        from livekit.agents.voice.avatar import QueueAudioOutput

        from server.doors.livekit import make_runner
        from server.programs.remote_link import RemoteLink

        class Me:
            async def publish_track(self, track: Any, options: Any) -> Any:
                return self

            async def wait_for_subscription(self) -> None:
                """There is nobody else."""

        class Room(rtc.Room):  # type: ignore[misc]
            local_participant = Me()

            def isconnected(self) -> bool:
                return True

        self._output = QueueAudioOutput(sample_rate=48_000)
        self._link = RemoteLink(url)
        await self._link.open()
        self._runner = await make_runner(Room(), self._link, self._output)
        await self._runner.start()
        assert self._link.session_id is not None
        return self._link.session_id

    async def say(self, pcm: Pcm) -> float:
        """Send an utterance (N,); returns when its first sound left."""
        from livekit import rtc

        began = time.time()
        for data in chunks(pcm):
            await self._output.capture_frame(rtc.AudioFrame(data, 48_000, 1, len(data) // 2))
            await asyncio.sleep(CHUNK_S / FASTER)
        self._output.flush()
        return began

    async def interrupt(self) -> tuple[float, float | None]:
        """Cut it off; returns when, and the acknowledged position."""
        asked = time.time()
        self._output.clear_buffer()
        return asked, 1000 * float((await self._output.wait_for_playout()).playback_position)

    async def close(self) -> None:
        """End the session."""
        await self._runner.aclose()
        await self._link.close()
