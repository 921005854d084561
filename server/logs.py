"""What is logged: a line of text or of JSON, with the session it is about, and never a flood."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
QUIET_S = 1.0
session_id: ContextVar[str] = ContextVar("session_id", default="")  # of what runs now


def configure(kind: LogFormat) -> None:
    """Log warnings and errors of everybody to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if kind == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s")
    )
    handler.addFilter(NoFlood())
    handler.addFilter(_name_session)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _name_session(record: logging.LogRecord) -> bool:
    record.session = session_id.get()
    return True


class NoFlood(logging.Filter):
    """Lets the same line of code say something once a second; the next time it says how often it would have."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int], tuple[float, int]] = {}  # when last, how often since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is said."""
        key, now = (record.pathname, record.lineno), self._clock()
        at, kept = self._said.get(key, (-QUIET_S, 0))
        if now - at < QUIET_S:
            self._said[key] = at, kept + 1
            return False
        self._said[key] = now, 0
        if kept:
            record.msg, record.args = f"{record.getMessage()} (and {kept} times more)", ()
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, session and error, where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if session := getattr(record, "session", ""):
            line["session"] = session
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
