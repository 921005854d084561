"""Media one way: many who watch one session, one who publishes its microphone."""

from __future__ import annotations

import asyncio

from server.live.limits import ServerFull, TooManyOffers
from server.live.session import Session
from server.live.surroundings import SessionOptions
from server.resources import Resource
from server.service import AvatarService
from server.webrtc.signaling import Role, check_offer
from server.webrtc.viewer import Viewer

_ending: set[asyncio.Task[None]] = set()  # kept from being collected


async def watch(
    service: AvatarService, session: Session, sdp: str, address: str
) -> tuple[Resource, str]:
    """Connect one more viewer, who is not heard, to what the session shows; returns the answer too.

    Raises:
        BadSdp: the offer cannot be used.
        TooManyOffers, ServerFull: not now.
    """
    check_offer(sdp, "watch")
    service.sessions.check_place(session)
    watching = service.resources.watching(service.sessions)
    most = service.capacity.watchers(service.sessions.live, service.settings.max_watchers)
    if watching >= most and service.resources.receivers(session):
        raise ServerFull(f"{watching} watch already, this server carries no more; try again")
    return await _connect(service, session, "watch", sdp, address)


async def publish(
    service: AvatarService, session: Session, sdp: str, address: str
) -> tuple[Resource, str]:
    """Take the session's microphone from the offer; who published before is sent away.

    Raises:
        BadSdp: the offer cannot be used.
        TooManyOffers: not now.
    """
    check_offer(sdp, "publish")
    before = service.resources.publishers(session.id)
    resource, answer = await _connect(service, session, "publish", sdp, address)
    for other in before:
        resource.owns_session |= other.owns_session
        other.owns_session = False
        await other.viewer.close()
    return resource, answer


async def open_and_publish(
    service: AvatarService, options: SessionOptions, sdp: str, address: str
) -> tuple[Resource, str]:
    """Open a session that lives as long as its microphone is published.

    Raises:
        BadSdp, and what `AvatarService.open_session` raises: nothing is left behind.
    """
    check_offer(sdp, "publish")
    session = await service.open_session(options, address)
    published = False
    try:
        resource, answer = await publish(service, session, sdp, address)
        resource.owns_session = published = True
    finally:
        if not published:
            await session.close("failed")
    return resource, answer


async def _connect(
    service: AvatarService, session: Session, role: Role, sdp: str, address: str
) -> tuple[Resource, str]:
    waiting = sum(resource.address == address for resource in service.resources.waiting())
    if waiting >= service.settings.offers_per_address:
        raise TooManyOffers(f"{waiting} offers from this address wait to be connected")
    with session.hold():
        viewer = Viewer(session, role=role)
        resource = Resource(viewer, address, sdp)
        service.resources.add(resource)
        viewer.when_gone(lambda: _end_session_of(resource))
        return resource, await service.connect(viewer, sdp)


def _end_session_of(resource: Resource) -> None:
    if resource.owns_session:
        task = asyncio.ensure_future(resource.viewer.session.close("door_closed"))
        _ending.add(task)
        task.add_done_callback(_ending.discard)
