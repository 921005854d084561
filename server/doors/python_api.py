"""The avatar as a Python object: sound in, pictures with their own sound out. No port is opened.

async with Avatar.load(portrait="me.jpg") as avatar:
    async for frame, sound in avatar.speak("hello.wav"):
        ...  # frame (H, W, 3) uint8 RGB; sound (1920,) int16 mono at 48 kHz, its 40 ms
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import secrets
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from engine.config import EngineConfig
from engine.errors import AvatarError, ConfigError, MediaError
from engine.face.image_file import decode_image
from engine.profiles import load_profile
from engine.types import Engine, RgbImage
from server.live.session import Session
from server.live.speech import Utterance
from server.live.surroundings import SessionOptions
from server.programs.sound_source import Source, read_source
from server.programs.turn import Pair, Pairing, Recording, Turn
from server.service import AvatarService
from server.settings import BUNDLED_PORTRAIT, ServerSettings
from server.sound.intake import Pcm48
from server.sound.sound_format import Encoding, SoundFormat

PortraitSource = str | Path | bytes | RgbImage
AHEAD_S = 5.0  # of speech that waits in a live session; the rest of the source is read later


class Avatar:
    """One talking portrait in this process, on one event loop; not for several tasks at a time.

    Two ways to speak: as fast as it goes, every frame drawn, nothing lost; or `paced`, in real time, as a
    viewer would see it, where overload costs pictures and never sound.

    Attributes:
        missed: pairs of paced speech that were not fetched within 2 s.
    """

    def __init__(
        self, portrait: PortraitSource, prompt: str, engine: Engine | EngineConfig
    ) -> None:
        self.missed = 0
        self._portrait_given, self._prompt = portrait, prompt
        self._engine = engine
        self._service: AvatarService | None = None
        self._portrait_id = "default"
        self._recording: Recording | None = None  # of speech as fast as it goes
        self._session: Session | None = None  # of paced speech
        self._turn: Turn | None = None
        self._stack = contextlib.AsyncExitStack()

    @classmethod
    def load(
        cls,
        portrait: PortraitSource = BUNDLED_PORTRAIT,
        *,
        prompt: str = "",
        config: EngineConfig | None = None,
        engine: Engine | None = None,
    ) -> Self:
        """Say what is to be loaded; `async with` does it.

        Args:
            portrait: a picture file, its content, or pixels (H, W, 3) uint8 RGB.
            prompt: what the face expresses, such as "smile 0.6".
            config: how the engine is to be loaded; the `tiny` profile if it is left out.
            engine: a loaded one, which belongs to this avatar alone while it lives.

        Raises:
            AvatarError: on entering: the picture, the prompt or the engine cannot be used.
        """
        return cls(portrait, prompt, engine or config or EngineConfig())

    async def __aenter__(self) -> Self:
        content = await asyncio.to_thread(_content, self._portrait_given)
        pixels = await asyncio.to_thread(decode_image, content)
        given = self._engine
        if isinstance(given, EngineConfig):
            engine: Engine = await asyncio.to_thread(load_profile, given)
        else:
            engine = given
        service = AvatarService(engine, ServerSettings(max_sessions=1, capacity=1))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(service.stop)
            await service.start(pixels, "Portrait")
            self._service = service
            await self.express(self._prompt)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.interrupt()
        self._service = self._session = self._recording = None
        await self._stack.aclose()

    async def speak(
        self,
        source: Source,
        *,
        rate_hz: int = 24_000,
        encoding: Encoding = "pcm16",
        paced: bool = False,
    ) -> AsyncIterator[Pair]:
        """Say something; what was being said is cut off.

        Args:
            source: see `server.programs.sound_source.read_source`; it is read as it is needed.
            rate_hz: of raw sound, as `encoding` is; a file says so itself.
            paced: give in real time. What is not fetched within 2 s is lost then, and counted.

        Yields:
            frames (H, W, 3) uint8 RGB, each with its own 40 ms of sound (1920,) int16 mono at 48 kHz.
            The last sound is filled up with silence.

        Raises:
            AvatarError: the source cannot be read, or the engine failed.
        """
        sound = read_source(source, SoundFormat(rate_hz, encoding))
        service = self._entered()
        self.interrupt()
        turn = self._turn = Turn()
        turn.fill((self._speak_live if paced else self._record)(service, turn, sound))
        try:
            while (pair := await turn.next()) is not None:
                yield pair
        finally:
            turn.stop()
            await turn.wait()
            self.missed += turn.missed
            if self._turn is turn:
                self._turn = None

    def interrupt(self) -> float:
        """Cut off what is being said: its `speak` ends. Returns the ms of it that were given out."""
        turn, self._turn = self._turn, None
        if turn is None:
            return 0.0
        turn.stop()
        if self._session is not None:
            self._session.interrupt()
        return turn.given_ms

    async def express(self, prompt: str) -> str:
        """Change what the face expresses, from the next frame drawn on; returns it as it was understood.

        Raises:
            PromptRefused: the profile cannot show it; nothing is changed.
        """
        service = self._entered()
        engine = service.worker.engine
        read = await service.worker.call(lambda: engine.read_prompt(prompt))
        self._prompt = prompt
        if self._session is not None:
            self._session.express(read, prompt)
        if (recording := self._recording) is not None:
            await service.worker.call(lambda: recording.express(read))
        return str(read)

    async def show(self, portrait: PortraitSource) -> None:
        """Show another face, a file or pixels (H, W, 3), from the next frame drawn on.

        Raises:
            AvatarError: the picture cannot be used; nothing is changed.
        """
        service = self._entered()
        known = await service.enroller.enroll(await asyncio.to_thread(_content, portrait))
        self._portrait_id = known.id
        if self._session is not None:
            service.show_portrait(self._session, known.id)
        if (recording := self._recording) is not None:
            await service.worker.call(lambda: recording.show(known.identity))

    def _entered(self) -> AvatarService:
        if self._service is None:
            raise ConfigError(
                "an avatar lives inside its block: async with Avatar.load(...) as avatar"
            )
        return self._service

    async def _record(
        self, service: AvatarService, turn: Turn, sound: AsyncIterator[Pcm48]
    ) -> None:
        """Draw every frame of a sound, as fast as the engine does."""
        recording, call = self._recording, service.worker.call
        if recording is None:
            identity = service.find_portrait(self._portrait_id).identity
            engine, prompt = service.worker.engine, self._prompt
            mark = service.mark_of(secrets.token_urlsafe(12))
            recording = await call(
                lambda: Recording(engine, identity, engine.read_prompt(prompt), mark)
            )
            self._recording = recording
        await call(recording.begin)
        async for pcm in sound:
            for pair in await call(partial(recording.push, pcm)):
                await turn.put(pair)
        for pair in await call(recording.end):
            await turn.put(pair)

    async def _speak_live(
        self, service: AvatarService, turn: Turn, sound: AsyncIterator[Pcm48]
    ) -> None:
        """Let a live session speak, and pair what leaves it."""
        session = await self._live_session(service)
        utterance = session.speech.begin(None, SoundFormat(48_000))
        pairing = Pairing(turn, utterance.id)
        end_events = session.events.subscribe(pairing.follow)
        try:
            if session.attach(pairing):
                await self._pour(sound, session, utterance, pairing)
        finally:
            end_events()
            if not utterance.over:
                session.interrupt()
            session.detach(pairing)
        if session.closed_for is not None:
            raise AvatarError(f"the live session ended: {session.closed_for}")

    async def _pour(
        self, sound: AsyncIterator[Pcm48], session: Session, utterance: Utterance, pairing: Pairing
    ) -> None:
        """Push pieces (N,) as they are needed, and wait until all has left or it is cut off."""
        async for pcm in sound:
            while session.speech.buffered_s > AHEAD_S and not utterance.over:
                pairing.moved.clear()
                await pairing.moved.wait()
            if utterance.over:
                return
            utterance.push(pcm.tobytes())
        utterance.end()
        await pairing.over.wait()

    async def _live_session(self, service: AvatarService) -> Session:
        if self._session is None or self._session.closed_for is not None:
            options = SessionOptions(
                portrait_id=self._portrait_id, prompt=self._prompt, voice="assistant"
            )
            self._session = await service.open_session(options)
            self._stack.enter_context(self._session.hold())
        return self._session


def _content(portrait: PortraitSource) -> bytes:
    """A picture file's content; of pixels (H, W, 3) one that holds them exactly."""
    if isinstance(portrait, bytes):
        return portrait
    if isinstance(portrait, np.ndarray):
        if portrait.ndim != 3 or portrait.shape[2] != 3 or portrait.dtype != np.uint8:
            raise MediaError(
                f"a portrait is uint8 (H, W, 3), not {portrait.dtype} {portrait.shape}"
            )
        out = io.BytesIO()
        Image.fromarray(portrait).save(out, "PNG", compress_level=1)
        return out.getvalue()
    path = Path(portrait)
    if not path.is_file():
        raise MediaError(f"no file {path}")
    return path.read_bytes()
