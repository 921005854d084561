"""What all sessions of a process share, and what is asked for when one is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.watermark.mark import Mark
from engine.watermark.payload import Payload
from server.live.beeps import BeepLog
from server.live.frame_log import FrameLog
from server.live.line import Voice
from server.live.worker import EngineWorker
from server.live.yuv import Converter
from server.metrics import Metrics
from server.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Settings, the engine threads, and where is counted and noted."""

    settings: ServerSettings
    worker: EngineWorker
    metrics: Metrics
    beeps: BeepLog | None = None  # test mode
    frames: FrameLog | None = None  # test mode
    converter: Converter = field(default_factory=Converter)

    def mark_of(self, session_id: str) -> Mark:
        """What the pictures of that session carry."""
        payload = Payload.of(self.settings.deployment, session_id)
        return Mark(payload, self.settings.mark_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What is asked for when a session is made."""

    portrait_id: str = "default"
    prompt: str = ""
    voice: Voice = "both"
    session_id: str = ""  # that of a session which goes on here; "": a new one
    subject: str = ""  # whose it is, where tokens are asked for
    expires_s: float | None = None  # without any receiver; None: as the server is set
