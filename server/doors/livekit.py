"""LiveKit Agents: the avatar as a video generator, as a participant of a room, and as an agent's session.

    avatar = AvatarSession(url="http://localhost:8080")
    await avatar.start(session, room=ctx.room)

The agent's speech comes as LiveKit sends it to any avatar worker: byte streams `lk.audio_stream`, the calls
`lk.clear_buffer`, `lk.playback_started` and `lk.playback_finished`. This module is imported by who has
the extra `livekit`; nothing else imports it at the top.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator

import av
import numpy as np

from engine.config import FPS
from engine.errors import AvatarError, ConfigError
from server.extras import extra
from server.programs.link import Link, LocalLink
from server.programs.pieces import Over, Said
from server.programs.remote_link import LinkFailed, RemoteLink
from server.service import AvatarService
from server.sound.intake import SOUND_RATE_HZ

with extra("livekit"):
    from livekit import api, rtc
    from livekit.agents import AgentSession, get_job_context, utils
    from livekit.agents.voice import avatar as agents

log = logging.getLogger(__name__)
IDENTITY = "portraittalk-avatar"
RECEIVED_MS = 20  # of speech in a frame from the agent
BACK_S = 0.2


class PortraitTalkGenerator(agents.VideoGenerator):  # type: ignore[misc]
    """What `AvatarRunner` drives: takes the agent's speech, gives pictures all the time, speech as it is
    said (48 kHz, silence left out), and `AudioSegmentEnd` after the last of a segment.

    Args:
        link: an open one.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._back = asyncio.Event()  # what was given has been taken and counted

    async def push_audio(self, frame: rtc.AudioFrame | agents.AudioSegmentEnd) -> None:
        """Take speech; waits while 50 s are ahead of what was said."""
        if isinstance(frame, agents.AudioSegmentEnd):
            await self._link.end()
            return
        data = bytes(frame.data)
        if frame.num_channels > 1:
            pcm = np.frombuffer(data, np.int16).reshape(-1, frame.num_channels)
            data = pcm.mean(axis=1).astype(np.int16).tobytes()
        try:
            await self._link.push(data, frame.sample_rate)
        except AvatarError as error:  # raised further it would end the runner
            log.error("the avatar does not say it: %s", error)

    async def clear_buffer(self) -> None:
        """Cut off everything but what was given already: that is played, and the runner has counted it."""
        await self._link.interrupt()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BACK_S):
                await self._back.wait()

    async def __aiter__(
        self,
    ) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | agents.AudioSegmentEnd]:
        self._back.set()
        async for piece in self._link:
            self._back.clear()
            if isinstance(piece, av.VideoFrame):
                i420 = rtc.VideoBufferType.I420
                yield rtc.VideoFrame(
                    piece.width, piece.height, i420, piece.to_ndarray(format="yuv420p").tobytes()
                )
            elif isinstance(piece, Said):
                data = piece.pcm.tobytes()
                yield rtc.AudioFrame(data, SOUND_RATE_HZ, 1, len(piece.pcm))
            elif isinstance(piece, Over):
                yield agents.AudioSegmentEnd()
            self._back.set()


async def make_runner(
    room: rtc.Room, link: Link, receiver: agents.AudioReceiver
) -> agents.AvatarRunner:
    """Make the runner of an open link; raises `LinkFailed` if its session ends before the first picture."""
    try:
        width, height = await link.pieces.size()
    except EOFError:
        raise LinkFailed(f"the session ended: {link.closed_for}") from None
    options = agents.AvatarOptions(
        video_width=width,
        video_height=height,
        video_fps=FPS,
        audio_sample_rate=SOUND_RATE_HZ,
        audio_channels=1,
    )
    generator = PortraitTalkGenerator(link)
    return agents.AvatarRunner(room, audio_recv=receiver, video_gen=generator, options=options)


@contextlib.asynccontextmanager
async def joined(url: str, token: str) -> AsyncIterator[rtc.Room]:
    """A room, connected inside the block; raises `LinkFailed` if it cannot be."""
    room = rtc.Room()
    try:
        await room.connect(url, token)
        yield room
    except rtc.ConnectError as error:
        raise LinkFailed(f"no room at {url}: {error.message}") from None
    finally:
        await room.disconnect()


async def take_part(room: rtc.Room, link: Link, agent_identity: str | None = None) -> None:
    """Be the avatar of an agent in a connected room until it, the room or the avatar's session ends.

    Args:
        agent_identity: whose speech is taken; None: the first agent's.

    Raises:
        AvatarError: there is no session.
    """
    over = asyncio.Event()

    def left(participant: rtc.RemoteParticipant) -> None:
        is_agent = participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
        if participant.identity == agent_identity or (agent_identity is None and is_agent):
            over.set()

    room.on("participant_disconnected", left)
    room.on("disconnected", lambda reason: over.set())
    runner: agents.AvatarRunner | None = None
    try:
        await link.open()
        receiver = agents.DataStreamAudioReceiver(
            room, sender_identity=agent_identity, frame_size_ms=RECEIVED_MS
        )
        runner = await make_runner(room, link, receiver)
        await runner.start()
        ends = (over.wait(), link.over.wait(), runner.wait_for_complete())
        parts = [asyncio.ensure_future(end) for end in ends]
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        await utils.aio.cancel_and_wait(*parts)
    finally:
        if runner is not None:
            await runner.aclose()
        await link.close()


def make_token(
    key: str, secret: str, *, room: str, identity: str, agent_identity: str | None = None
) -> str:
    """The token of an avatar that joins `room`, on behalf of an agent if one is named."""
    token = api.AccessToken(key, secret).with_kind("agent").with_identity(identity)
    token = token.with_name(identity).with_grants(api.VideoGrants(room_join=True, room=room))
    if agent_identity is not None:
        token = token.with_attributes({"lk.publish_on_behalf": agent_identity})
    return str(token.to_jwt())


def from_environment(name: str, given: str | None) -> str:
    """The value that was given, or that of a variable; raises `ConfigError` if there is none."""
    value = given or os.environ.get(name)
    if not value:
        raise ConfigError(f"{name} is not set, nor was it given")
    return value


class AvatarSession(agents.AvatarSession):  # type: ignore[misc]
    """Gives an agent a face: a participant of its own joins the room from the agent's process.

    Args:
        url: of a server that draws the avatar.
        service: draws it in this process (`server.programs.embedded`), if there is no `url`.
        join: False: a `portraittalk livekit-worker` joins by itself, under `identity`.

    Raises:
        ValueError: not exactly one of `url` and `service` is given, or one with `join` off.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        service: AvatarService | None = None,
        portrait_id: str = "default",
        prompt: str = "",
        identity: str = IDENTITY,
        join: bool = True,
    ) -> None:
        if (url is not None) + (service is not None) != join:
            raise ValueError("give the url of a server or a service of this process, or join=False")
        super().__init__()
        self._identity = identity
        self._link: Link | None = None
        if service is not None:
            self._link = LocalLink(service, portrait_id, prompt)
        elif url is not None:
            self._link = RemoteLink(url, portrait_id, prompt)
        self._part: asyncio.Task[None] | None = None

    @property
    def avatar_identity(self) -> str:
        """The avatar's identity in the room."""
        return self._identity

    @property
    def provider(self) -> str:
        """Who draws the avatar."""
        return "portraittalk"

    async def start(
        self,
        agent_session: AgentSession,
        room: rtc.Room,
        *,
        livekit_url: str | None = None,
        livekit_api_key: str | None = None,
        livekit_api_secret: str | None = None,
    ) -> None:
        """Let the avatar join and say what the agent says; before the agent's own session starts.

        Without the last three, `LIVEKIT_URL`, `LIVEKIT_API_KEY` and `LIVEKIT_API_SECRET` are read.

        Raises:
            ConfigError: one of them is missing.
        """
        if self._link is not None:
            url = from_environment("LIVEKIT_URL", livekit_url)
            key = from_environment("LIVEKIT_API_KEY", livekit_api_key)
            secret = from_environment("LIVEKIT_API_SECRET", livekit_api_secret)
            job = get_job_context(required=False)
            agent = job.local_participant_identity if job else room.local_participant.identity
            token = make_token(
                key, secret, room=room.name, identity=self._identity, agent_identity=agent
            )
            self._part = asyncio.create_task(self._take_part(url, token, self._link, agent))
        await super().start(agent_session, room)
        agent_session.output.replace_audio_tail(
            agents.DataStreamAudioOutput(
                room,
                destination_identity=self._identity,
                wait_remote_track=rtc.TrackKind.KIND_VIDEO,
                wait_playback_start=True,
            )
        )

    async def aclose(self) -> None:
        """Let the avatar leave. May be called again."""
        if self._part is not None:
            await utils.aio.cancel_and_wait(self._part)
            self._part = None
        await super().aclose()

    async def _take_part(self, url: str, token: str, link: Link, agent: str) -> None:
        try:
            async with joined(url, token) as room:
                await take_part(room, link, agent)
            log.warning("the avatar has left: %s", link.closed_for or "the room is closed")
        except AvatarError as error:
            log.error("no avatar: %s", error)
