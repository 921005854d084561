"""The Pipecat service in real pipelines, with a real output that keeps real time."""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pipecat", reason="needs pip install 'portraittalk[pipecat]'")

from loguru import logger
from pipecat.frames import frames as f
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.workers.runner import WorkerRunner

with warnings.catch_warnings():  # its own, about what it still has for older programs
    warnings.simplefilter("ignore", DeprecationWarning)
    from pipecat.services.tts_service import TTSService

from engine.errors import BackendUnavailable
from server.doors.pipecat import PortraitTalkVideoService
from server.live.session import Session
from server.settings import ServerSettings
from tests.doors.readme import example
from tests.server.live import Live, until
from tests.server.live import serving as serve

pytestmark = pytest.mark.timeout(60)
RATE_HZ = 24_000


def serving() -> AbstractAsyncContextManager[Live]:
    """A server that spends no time on measuring itself."""
    return serve(settings=ServerSettings(port=0, capacity=4))


def tone(seconds: float) -> bytes:
    at = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    return (8000 * np.sin(2 * np.pi * 200 * at)).astype("<i2").tobytes()


def speech(context: str, seconds: float) -> list[f.Frame]:
    """What a TTS gives for an utterance, faster than it is spoken."""
    pcm, size = tone(seconds), RATE_HZ // 5 * 2
    parts = [pcm[i : i + size] for i in range(0, len(pcm), size)]
    return [
        f.TTSStartedFrame(context_id=context),
        *[f.TTSAudioRawFrame(part, RATE_HZ, 1, context_id=context) for part in parts],
        f.TTSStoppedFrame(context_id=context),
    ]


class Output(BaseOutputTransport):
    """A loudspeaker and a screen that remember; the speaker plays in real time."""

    def __init__(self) -> None:
        params = TransportParams(
            audio_out_enabled=True,
            audio_out_end_silence_secs=0,
            video_out_enabled=True,
            video_out_is_live=True,
            video_out_width=128,
            video_out_height=128,
            video_out_framerate=25,
        )
        super().__init__(params)
        self.played: list[tuple[float, np.ndarray]] = []
        self.shown: list[tuple[float, f.OutputImageRawFrame]] = []
        self._free = 0.0

    async def start(self, frame: f.StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: f.OutputAudioRawFrame) -> bool:
        now = time.monotonic()
        self.played.append((now, np.frombuffer(frame.audio, np.int16)))
        self._free = max(self._free, now) + len(frame.audio) / 2 / self.sample_rate
        await asyncio.sleep(self._free - now)
        return True

    async def write_video_frame(self, frame: f.OutputImageRawFrame) -> bool:
        self.shown.append((time.monotonic(), frame))
        return True

    def seconds(self, since: float = 0) -> float:
        """Of sound that was played since."""
        return sum(len(pcm) for at, pcm in self.played if at >= since) / self.sample_rate


class Recorder(FrameProcessor):
    """Everything that passes between the avatar and the output."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[float, f.Frame]] = []

    async def process_frame(self, frame: f.Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append((time.monotonic(), frame))
        await self.push_frame(frame, direction)

    def of(self, *kinds: type[f.Frame]) -> list[Any]:
        return [frame for _, frame in self.frames if isinstance(frame, kinds)]

    def names(self) -> list[str]:
        """Of the frames of speech, runs of sound once."""
        names: list[str] = []
        for frame in self.of(f.TTSStartedFrame, f.TTSAudioRawFrame, f.TTSStoppedFrame):
            name = type(frame).__name__
            if not names or names[-1] != name or name != "TTSAudioRawFrame":
                names.append(name)
        return names


class Running:
    """A pipeline at work: an avatar, what passes behind it, an output."""

    def __init__(self, avatar: PortraitTalkVideoService) -> None:
        self.avatar, self.recorder, self.output = avatar, Recorder(), Output()
        self.errors: list[str] = []
        self.interrupted: list[tuple[str | None, float]] = []
        self.worker = PipelineWorker(
            Pipeline([avatar, self.recorder, self.output]),
            params=PipelineParams(audio_out_sample_rate=RATE_HZ, enable_metrics=True),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
        )
        avatar.add_event_handler("on_interrupted", self._note_interruption)
        self.worker.add_event_handler("on_pipeline_error", self._note_error)
        self.task: asyncio.Task[None] | None = None

    async def _note_interruption(self, avatar: Any, context: str | None, ms: float) -> None:
        self.interrupted.append((context, ms))

    async def _note_error(self, worker: Any, frame: f.ErrorFrame) -> None:
        self.errors.append(frame.error)

    async def start(self) -> None:
        started = asyncio.Event()

        async def note(worker: Any, frame: f.StartFrame) -> None:
            started.set()

        self.worker.add_event_handler("on_pipeline_started", note)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self.task = asyncio.create_task(runner.run())
        await started.wait()

    async def end(self) -> None:
        assert self.task is not None
        await self.worker.queue_frame(f.EndFrame())
        await asyncio.wait_for(self.task, 20)


@asynccontextmanager
async def running(avatar: PortraitTalkVideoService) -> AsyncIterator[Running]:
    logger.remove()
    pipeline = Running(avatar)
    await pipeline.start()
    try:
        yield pipeline
    finally:
        if pipeline.task is not None and not pipeline.task.done():
            await pipeline.worker.cancel()
            await asyncio.wait_for(pipeline.task, 20)


def drawn(how: str, live: Live) -> PortraitTalkVideoService:
    if how == "server":
        return PortraitTalkVideoService(url=live.url)
    return PortraitTalkVideoService(service=live.service)


def only_session(live: Live) -> Session:
    [session] = live.service.sessions
    return session


@pytest.mark.parametrize("how", ["server", "process"])
async def test_a_voice_comes_back_whole_with_its_pictures(how: str) -> None:
    async with serving() as live, running(drawn(how, live)) as pipeline:
        await until(lambda: len(pipeline.output.shown) > 10, 15)  # alive while it is silent
        assert not pipeline.output.played
        began = time.monotonic()
        await pipeline.worker.queue_frames([*speech("u1", 1.0), *speech("u2", 0.5)])
        await until(lambda: pipeline.recorder.names().count("TTSStoppedFrame") == 2, 15)
        one = ["TTSStartedFrame", "TTSAudioRawFrame", "TTSStoppedFrame"]
        assert pipeline.recorder.names() == one * 2
        sound = pipeline.recorder.of(f.TTSAudioRawFrame)
        for context, seconds in (("u1", 1.0), ("u2", 0.5)):
            parts = [part.audio for part in sound if part.context_id == context]
            assert abs(len(b"".join(parts)) / 2 / RATE_HZ - seconds) < 0.005
        images = pipeline.recorder.of(f.OutputImageRawFrame)
        assert {(image.size, image.format) for image in images} == {((128, 128), "RGB")}
        assert len(images[0].image) == 128 * 128 * 3
        assert time.monotonic() - began > 1.4  # in real time, not as fast as it came
        await pipeline.end()
        assert abs(pipeline.output.seconds() - 1.5) < 0.1
        ttfb = [
            data.value
            for frame in pipeline.recorder.of(f.MetricsFrame)
            for data in frame.data
            if type(data).__name__ == "TTFBMetricsData" and data.value
        ]
        assert len(ttfb) == 1  # the second waited for the first: that is no measure
        assert 0.05 < ttfb[0] < 1
        assert not pipeline.errors
        assert not len(live.service.sessions)


@pytest.mark.parametrize("how", ["server", "process"])
async def test_an_interruption_cuts_off_everything_and_tells_where(how: str) -> None:
    async with serving() as live, running(drawn(how, live)) as pipeline:
        await pipeline.worker.queue_frames(speech("long", 10.0))
        await until(lambda: pipeline.output.seconds() > 0.5, 15)
        await pipeline.worker.queue_frame(f.InterruptionFrame())
        await until(lambda: bool(pipeline.interrupted), 5)
        await asyncio.sleep(0.4)
        [(context, position_ms)] = pipeline.interrupted
        assert context == "long"
        [cut] = [at for at, x in pipeline.recorder.frames if isinstance(x, f.InterruptionFrame)]
        sound = [(at, x) for at, x in pipeline.recorder.frames if isinstance(x, f.TTSAudioRawFrame)]
        assert max(at for at, _ in sound) <= cut
        handed_ms = 1000 * sum(len(x.audio) for _, x in sound) / 2 / RATE_HZ
        assert position_ms <= handed_ms
        # the output began to play so much; the last 40 ms of it not to their end
        assert -100 <= position_ms - 1000 * pipeline.output.seconds() <= 1
        assert not only_session(live).speech.busy

        await pipeline.worker.queue_frames(speech("next", 0.4))
        await pipeline.end()
        assert pipeline.output.seconds() > position_ms / 1000 + 0.3
        after = [x for x in pipeline.recorder.of(f.TTSAudioRawFrame) if x.context_id == "next"]
        assert abs(sum(len(x.audio) for x in after) / 2 / RATE_HZ - 0.4) < 0.005


async def test_the_end_waits_for_what_was_taken() -> None:
    async with serving() as live, running(drawn("process", live)) as pipeline:
        await pipeline.worker.queue_frames(speech("goodbye", 1.0)[:-1])  # and no TTSStoppedFrame
        await pipeline.end()
        assert abs(pipeline.output.seconds() - 1.0) < 0.1
        assert not len(live.service.sessions)


async def test_a_cancelled_pipeline_ends_the_session_at_once() -> None:
    async with serving() as live, running(drawn("server", live)) as pipeline:
        await pipeline.worker.queue_frames(speech("long", 10.0))
        await until(lambda: bool(pipeline.output.played), 15)
        await pipeline.worker.cancel()
        assert pipeline.task is not None
        await asyncio.wait_for(pipeline.task, 5)
        await until(lambda: not len(live.service.sessions), 5)
        await pipeline.avatar.cleanup()  # may be called again


async def test_the_face_follows_the_conversation() -> None:
    async with serving() as live, running(drawn("server", live)) as pipeline:
        session = only_session(live)
        assert pipeline.avatar.session_id == session.id
        for frame, mood in (
            (f.UserStartedSpeakingFrame(), "listening"),
            (f.UserStoppedSpeakingFrame(), "thinking"),
        ):
            await pipeline.worker.queue_frame(frame)
            await until(lambda mood=mood: session.mood == mood, 5)
        await pipeline.worker.queue_frames(speech("answer", 0.3))
        await until(lambda: session.mood == "speaking", 5)
        await until(lambda: session.mood == "idle", 5)


async def test_a_tts_without_sound_passes() -> None:
    async with serving() as live, running(drawn("process", live)) as pipeline:
        started, *_, stopped = speech("nothing", 0.2)
        await pipeline.worker.queue_frames([started, stopped])
        await until(lambda: len(pipeline.recorder.names()) == 2, 5)
        assert pipeline.recorder.names() == ["TTSStartedFrame", "TTSStoppedFrame"]


async def test_without_a_server_the_voice_goes_on_and_it_is_said_why() -> None:
    async with running(PortraitTalkVideoService(url="http://127.0.0.1:9")) as pipeline:
        await pipeline.worker.queue_frames(speech("u", 0.3))
        await until(lambda: bool(pipeline.errors), 5)
        await pipeline.end()
        assert "127.0.0.1:9 cannot be reached" in pipeline.errors[0]
        assert abs(pipeline.output.seconds() - 0.3) < 0.05


async def test_when_the_session_ends_the_voice_goes_on() -> None:
    async with serving() as live, running(drawn("server", live)) as pipeline:
        await live.http.delete(f"/api/sessions/{only_session(live).id}")
        await until(lambda: bool(pipeline.errors), 5)
        assert "the avatar is gone: client" in pipeline.errors[0]
        await pipeline.worker.queue_frames(speech("u", 0.3))
        await pipeline.end()
        assert abs(pipeline.output.seconds() - 0.3) < 0.05


async def test_a_portrait_that_is_unknown_is_said() -> None:
    async with serving() as live:
        avatar = PortraitTalkVideoService(url=live.url, portrait_id="nobody")
        async with running(avatar) as pipeline:
            await until(lambda: bool(pipeline.errors), 5)
            assert "this portrait is not known" in pipeline.errors[0]


def test_either_a_server_or_a_service_is_asked_for() -> None:
    with pytest.raises(ValueError, match="either the url of a server, or a service"):
        PortraitTalkVideoService()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server.doors.pipecat")
    monkeypatch.setitem(sys.modules, "pipecat.frames.frames", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'portraittalk\[pipecat\]'"):
        __import__("server.doors.pipecat")


class ToneTTS(TTSService):
    """Says everything as a tone of half a second."""

    def __init__(self) -> None:
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            stop_frame_timeout_s=0.3,
            settings=settings,
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncIterator[f.Frame]:
        yield f.TTSAudioRawFrame(tone(0.5), RATE_HZ, 1, context_id=context_id)


class Passing(FrameProcessor):
    """Lets everything pass; says `hello` when it starts and then ends, if asked to."""

    def __init__(self, hello: str = "") -> None:
        super().__init__()
        self._hello = hello

    async def process_frame(self, frame: f.Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, f.StartFrame) and self._hello:
            await self.push_frame(f.TTSSpeakFrame(self._hello))
            await self.push_frame(f.EndWorkerFrame(), FrameDirection.UPSTREAM)


class Stage(BaseTransport):
    def __init__(self) -> None:
        super().__init__()
        self.speaker = Output()

    def input(self) -> FrameProcessor:
        return Passing("Hello!")

    def output(self) -> FrameProcessor:
        return self.speaker


async def test_the_readme_s_example_talks() -> None:
    logger.remove()
    stage = Stage()
    async with serving() as live:
        talk = example("PortraitTalkVideoService", live.url)["talk"]
        began = time.monotonic()
        await asyncio.wait_for(talk(stage, Passing(), Passing(), ToneTTS()), 30)
        assert time.monotonic() - began < 25  # it ended by itself
        assert abs(stage.speaker.seconds() - 0.5) < 0.1
        assert stage.speaker.shown
        assert not len(live.service.sessions)
