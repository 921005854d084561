"""Rooms of LiveKit without a server: real tracks, sources, streams and tokens, joined in one process.

What a server and its signalling would carry (participants, publications, byte streams, calls) goes from
one room to the others directly.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from livekit import api, rtc

KEY, SECRET = "devkey", "a secret of at least thirty-two letters"
ACTIVE = rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE
AGENT = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
calls = itertools.count()


@dataclass
class Publication:
    """A track as its room and the others see it."""

    track: Any
    kind: int
    sid: str = "TR_1"
    subscribed: bool = True

    async def wait_for_subscription(self) -> None:
        """Everybody has subscribed already."""


@dataclass
class Stream:
    """Both ends of a byte stream."""

    info: Any
    chunks: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def write(self, data: bytes) -> None:
        self.chunks.put_nowait(data)

    async def aclose(self) -> None:
        self.chunks.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.chunks.get()
        if data is None:
            raise StopAsyncIteration
        return data


class Participant:
    """One in a room, as itself and the others see it."""

    state = ACTIVE

    def __init__(self, room: HubRoom, identity: str, kind: int, attributes: dict[str, str]) -> None:
        self.room, self.identity, self.kind, self.attributes = room, identity, kind, attributes
        self.track_publications: dict[str, Publication] = {}
        self._rpc_handlers: dict[str, Any] = {}

    async def publish_track(self, track: Any, options: Any = None) -> Publication:
        publication = Publication(track, track.kind)
        self.track_publications[track.name] = publication
        for other in self.room.others():
            other.emit("track_published", publication, self)
        return publication

    def register_rpc_method(self, method: str, handler: Any) -> None:
        self._rpc_handlers[method] = handler

    async def perform_rpc(self, *, destination_identity: str, method: str, payload: str) -> str:
        handlers = self.room.hub[destination_identity].local_participant._rpc_handlers
        self.room.wire.append((self.identity, method, payload))
        await asyncio.sleep(0)
        call = rtc.RpcInvocationData(str(next(calls)), self.identity, payload, 5.0)
        return handlers[method](call)

    async def stream_bytes(
        self, *, name: str, topic: str, destination_identities: list[str], attributes: Any
    ) -> Stream:
        stream = Stream(SimpleNamespace(stream_id=name, topic=topic, attributes=attributes))
        self.room.wire.append((self.identity, topic, attributes))
        for identity in destination_identities:
            self.room.hub[identity]._byte_stream_handlers[topic](stream, self.identity)
        return stream


class HubRoom(rtc.Room):
    """A room whose server is `hub`: the rooms of its participants by identity."""

    hub: dict[str, HubRoom]
    wire: list[tuple[str, str, Any]]

    def __init__(self) -> None:
        super().__init__()
        self.me: Participant | None = None

    async def connect(self, url: str, token: str, options: Any = None) -> None:
        claims = api.TokenVerifier(KEY, SECRET).verify(token)
        assert claims.video is not None
        assert claims.video.room_join
        kind = AGENT if claims.kind == "agent" else 0
        self.room_name = claims.video.room
        self.me = Participant(self, claims.identity, kind, dict(claims.attributes or {}))
        self.hub[claims.identity] = self
        for other in self.others():
            other.emit("participant_active", self.me)

    async def disconnect(self, **reason: Any) -> None:
        if self.me is not None and self.hub.pop(self.me.identity, None) is not None:
            for other in self.hub.values():
                other.emit("participant_disconnected", self.me)

    def others(self) -> list[HubRoom]:
        return [room for room in self.hub.values() if room is not self]

    def isconnected(self) -> bool:
        return self.me is not None and self.me.identity in self.hub

    @property
    def name(self) -> str:
        return self.room_name

    @property
    def local_participant(self) -> Any:
        return self.me

    @property
    def remote_participants(self) -> Any:
        return {r.me.identity: r.me for r in self.others() if r.me is not None}


def new_hub() -> type[HubRoom]:
    """The rooms of a server of its own."""
    return type("HubRoom", (HubRoom,), {"hub": {}, "wire": []})


def token(identity: str, *, kind: str = "standard", room: str = "demo") -> str:
    """A participant's token."""
    made = api.AccessToken(KEY, SECRET).with_kind(kind).with_identity(identity)
    return made.with_grants(api.VideoGrants(room_join=True, room=room)).to_jwt()
