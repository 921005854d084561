"""Pipecat: a video service that gives the assistant a face, for a pipeline between TTS and output.

    avatar = PortraitTalkVideoService(url="http://localhost:8080")
    Pipeline([transport.input(), stt, llm, tts, avatar, transport.output()])

The output's parameters: `video_out_enabled`, `video_out_is_live` and the size of the portrait. This module is
imported by who has the extra `pipecat`; nothing else imports it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import av
import numpy as np

from engine.errors import AvatarError
from server.doors.pipecat_played import Played
from server.extras import extra
from server.programs.link import Link, LocalLink
from server.programs.pieces import Over, Piece, Said
from server.programs.remote_link import RemoteLink
from server.service import AvatarService
from server.sound.sound_format import Encoder

with extra("pipecat"):
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        TTSAudioRawFrame,
        TTSStartedFrame,
        TTSStoppedFrame,
        UserStartedSpeakingFrame,
        UserStoppedSpeakingFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings


class PortraitTalkVideoService(AIService):  # type: ignore[misc]
    """Takes the frames of a TTS and gives them back in the avatar's time, with its pictures.

    TTS frames are held back: each `TTSStartedFrame`, its audio and its `TTSStoppedFrame`
    leave when the avatar says them. Pictures leave all the time. An interruption cuts off
    everything that was taken; the event `on_interrupted` (service, context id, ms of it that the
    output had played) tells where. Without a session, because the server cannot be reached or has ended it,
    an error is pushed and the voice goes on without the face.

    Args:
        url: of a server that draws the avatar.
        service: draws it in this process (`server.programs.embedded`), if there is no `url`.

    Raises:
        ValueError: not exactly one of the two is given.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        service: AvatarService | None = None,
        portrait_id: str = "default",
        prompt: str = "",
        **kwargs: Any,
    ) -> None:
        if (url is None) == (service is None):
            raise ValueError("give either the url of a server, or a service of this process")
        super().__init__(settings=ServiceSettings(model=None), **kwargs)
        self._link: Link
        if service is not None:
            self._link = LocalLink(service, portrait_id, prompt)
        elif url is not None:
            self._link = RemoteLink(url, portrait_id, prompt)
        self._faced = False  # there is a session
        self._pump: asyncio.Task[None] | None = None
        self._opening: TTSStartedFrame | None = None  # its sound has not come yet
        self._started: dict[str, TTSStartedFrame] = {}  # by utterance: to be told when it begins
        self._stopped: dict[str, TTSStoppedFrame] = {}  # and when it is over
        self._contexts: dict[str, str | None] = {}
        self._rate_hz = 0  # of the pipeline's output
        self._voice: tuple[str, Encoder] | None = None  # the utterance that is being said
        self._played = Played()
        self._whole = 0  # utterances that were handed on to their `TTSStoppedFrame`
        self._register_event_handler("on_interrupted")

    @property
    def session_id(self) -> str | None:
        """The avatar's session, once there is one: a page joins it as a viewer by that id."""
        return self._link.session_id

    def can_generate_metrics(self) -> bool:
        """Whether it measures: the time from a TTS's start to the first of its sound with a face."""
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Make the session."""
        await super().setup(setup)
        self._rate_hz = setup.audio_out_sample_rate
        setup.pipeline_worker.add_observer(self._played)
        try:
            await self._link.open()
            self._faced = True
        except AvatarError as error:
            await self.push_error(f"no avatar: {error}", exception=error)

    async def stop(self, frame: EndFrame) -> None:
        """Say what was taken to its end, then end the session."""
        await super().stop(frame)
        await self._link.end()
        if self._pump is not None and not self._pump.done():
            await self._link.all_said()
        await self._hang_up()

    async def cancel(self, frame: CancelFrame) -> None:
        """End the session at once."""
        await super().cancel(frame)
        await self._hang_up()

    async def cleanup(self) -> None:
        """End the session if it has not been ended."""
        await super().cleanup()
        await self._hang_up()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take speech, follow the conversation; everything else passes."""
        await super().process_frame(frame, direction)
        if self._faced and await self._take(frame):
            return
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and self._faced:
            self._pump = self.create_task(self._hand_on())

    async def _take(self, frame: Frame) -> bool:
        """Whether the frame is swallowed."""
        match frame:
            case TTSStartedFrame():
                await self._link.end()
                self._opening = frame
                if not self._link.waiting_s:
                    await self.start_ttfb_metrics()
            case TTSAudioRawFrame():
                await self._say(frame)
            case TTSStoppedFrame():
                return await self._stop_speech(frame)
            case InterruptionFrame():
                await self._interrupt()
                return False
            case UserStartedSpeakingFrame():
                await self._link.set_mood("listening")
                return False
            case UserStoppedSpeakingFrame():
                await self._link.set_mood("thinking")
                return False
            case _:
                return False
        return True

    async def _say(self, frame: TTSAudioRawFrame) -> None:
        if not frame.audio:
            return
        data = frame.audio
        if frame.num_channels > 1:
            pcm = np.frombuffer(data, np.int16).reshape(-1, frame.num_channels)
            data = pcm.mean(axis=1).astype(np.int16).tobytes()
        try:
            utterance = await self._link.push(data, frame.sample_rate)
        except AvatarError as error:
            await self.push_error(f"the avatar does not say it: {error}", exception=error)
            return
        self._contexts[utterance] = frame.context_id
        if self._opening is not None:
            self._started[utterance], self._opening = self._opening, None

    async def _stop_speech(self, frame: TTSStoppedFrame) -> bool:
        """Keep the frame until the avatar is so far, if it has anything to say."""
        utterance = self._link.utterance
        speaks = utterance is not None and not self._link.cut_off
        if speaks and utterance is not None:
            self._stopped[utterance] = frame
        elif self._opening is not None:  # there was no sound
            await self.push_frame(self._opening)
            self._opening = None
        await self._link.end()
        return speaks

    async def _interrupt(self) -> None:
        utterance, handed_ms = await self._link.interrupt()
        position_ms = self._played.interrupt(handed_ms, self._whole)
        context = self._contexts.get(utterance) if utterance else None
        self._forget()
        await self._call_event_handler("on_interrupted", context, position_ms)

    def _forget(self) -> None:
        self._opening = None
        for known in (self._started, self._stopped, self._contexts):
            known.clear()

    async def _hand_on(self) -> None:
        """Push what leaves, for as long as there is a session."""
        async for piece in self._link:
            await self._push_piece(piece)
        self._faced = False
        self._forget()
        why = self._link.closed_for or "its session is over"
        await self.push_error(f"the avatar is gone: {why}; the voice goes on without it")

    async def _push_piece(self, piece: Piece) -> None:
        if isinstance(piece, av.VideoFrame):
            rgb = piece.to_ndarray(format="rgb24")
            size = (piece.width, piece.height)
            await self.push_frame(OutputImageRawFrame(rgb.tobytes(), size, "RGB"))
        elif isinstance(piece, Said):
            started = self._started.pop(piece.utterance, None)
            if started is not None:
                await self.stop_ttfb_metrics()
                await self.push_frame(started)
            if self._voice is None or self._voice[0] != piece.utterance:
                self._voice = piece.utterance, Encoder(self._rate_hz)
            await self._push_sound(piece.utterance, self._voice[1].push(piece.pcm))
        elif isinstance(piece, Over):
            if self._voice is not None and self._voice[0] == piece.utterance:
                await self._push_sound(piece.utterance, self._voice[1].end())
            self._contexts.pop(piece.utterance, None)
            stopped = self._stopped.pop(piece.utterance, None)
            if stopped is not None:
                self._whole += 1
                await self.push_frame(stopped)

    async def _push_sound(self, utterance: str, data: bytes) -> None:
        if data:
            context = self._contexts.get(utterance)
            await self.push_frame(TTSAudioRawFrame(data, self._rate_hz, 1, context_id=context))

    async def _hang_up(self) -> None:
        """End the session. May be called again."""
        self._faced = False
        if self._pump is not None:
            await self.cancel_task(self._pump)
            self._pump = None
        await self._link.close()
