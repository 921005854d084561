"""How much waits in the queues of a server, looked at when `/metrics` is read."""

from __future__ import annotations

from server.service import AvatarService


def waiting(service: AvatarService) -> dict[str, float]:
    """What waits where; sound in seconds, all else in pieces."""
    sessions = list(service.sessions)
    return {
        "speech_seconds": sum(session.speech.buffered_s for session in sessions),
        "sessions_to_connect": sum(not session.live for session in sessions),
        "connections_to_connect": len(service.resources.waiting()),
        "receivers": sum(len(session.broadcast.outlets) for session in sessions),
        "pictures_being_enrolled": service.enroller.waiting,
        "engine_calls": service.worker.waiting,
    }
