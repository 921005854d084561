"""What all sessions of a process share."""

from __future__ import annotations

from dataclasses import dataclass

from server.beeps import BeepLog
from server.frame_log import FrameLog
from server.metrics import Metrics
from server.settings import ServerSettings
from server.worker import EngineWorker


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Settings, the engine thread, and where is counted and noted."""

    settings: ServerSettings
    worker: EngineWorker
    metrics: Metrics
    beeps: BeepLog | None = None  # test mode
    frames: FrameLog | None = None  # test mode
