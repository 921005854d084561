"""The audit log: who enrolled and deleted portraits and had sessions, one JSON object a line.

It is only ever added to, and holds ids alone: names and purposes are in the consent records, which
can be deleted.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
from pathlib import Path
from typing import Any

from engine.errors import AvatarError, ConfigError
from server.live.events import Event
from server.live.session import Session
from server.portraits import Portrait

log = logging.getLogger(__name__)


class AuditFailed(AvatarError):
    """The log cannot be written, and what would not be in it is not done."""


class AuditLog:
    """Adds to a file, readable by its owner alone; without a file it is the server's own log.

    Args:
        aloud: write to the server's log where there is no file.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, path: str, *, aloud: bool) -> None:
        self._aloud, self._file = aloud, None
        if path:
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._file = os.open(Path(path), flags, 0o600)
            except OSError as error:
                raise ConfigError(
                    f"audit_log={path!r} cannot be written: {error.strerror}"
                ) from None

    def note(self, event: str, **what: Any) -> None:
        """Add a line; raises `AuditFailed`."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **what})
        if self._file is None:
            if self._aloud:
                log.info("%s", line)
            return
        try:
            os.write(self._file, line.encode() + b"\n")
        except OSError as error:
            raise AuditFailed(f"the audit log cannot be written: {error.strerror}") from None

    def portrait(self, event: str, portrait: Portrait) -> None:
        """Note that a portrait is enrolled or deleted; raises `AuditFailed`."""
        given = portrait.consent
        record = {} if given is None else {"consent": given.id, "token": given.token}
        self.note(f"portrait_{event}", portrait=portrait.id, subject=portrait.owner, **record)

    def follow(self, session: Session) -> None:
        """Note that a session begins, and its end."""
        about = {"session": session.id, "subject": session.subject}

        def hear(event: Event) -> None:
            if event.type == "portrait":
                self._note("session_portrait", **about, portrait=event.data["portrait_id"])
            elif event.type == "closing":
                self._note("session_closed", **about, reason=event.data["reason"])

        self._note(
            "session_opened",
            **about,
            portrait=session.portrait_id,
            mark=f"{session.mark.payload.session:08x}",
        )
        session.events.subscribe(hear)

    def close(self) -> None:
        """Nothing more comes."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _note(self, event: str, **what: Any) -> None:
        """Note what has happened already."""
        try:
            self.note(event, **what)
        except AuditFailed as error:
            log.error("%s: %s of session %s is missing", error, event, what["session"])
