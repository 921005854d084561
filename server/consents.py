"""What somebody agreed to whose face is enrolled: kept beside the portrait, and gone with it."""

from __future__ import annotations

import datetime
import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field

MOST_CHARACTERS = 4096  # of the header


class ConsentGiven(BaseModel):
    """The header `Consent` of POST /api/portraits: JSON, percent-encoded where it is not ASCII."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    who: str = Field(min_length=1, max_length=200)  # agreed: the person in the picture
    purpose: str = Field(min_length=1, max_length=500)
    when: datetime.datetime | None = None  # now, if it is not said

    @classmethod
    def read(cls, header: str) -> ConsentGiven:
        """Read the header; raises `ValueError` (pydantic's) if it is none."""
        return cls.model_validate(_loaded(header))


@dataclass(frozen=True, slots=True)
class Consent:
    """A record of it: who agreed, when and to what, and which token brought it."""

    who: str
    purpose: str
    when: str  # ISO 8601, UTC
    subject: str  # of the token
    token: str  # its fingerprint; "": the server asks for none
    id: str = field(default_factory=lambda: f"c-{secrets.token_urlsafe(9)}")
    recorded: str = field(default_factory=lambda: _said(datetime.datetime.now(datetime.UTC)))

    @classmethod
    def of(cls, given: ConsentGiven, subject: str, token: str) -> Consent:
        """Record what was given by a token."""
        when = given.when or datetime.datetime.now(datetime.UTC)
        return cls(given.who, given.purpose, _said(when), subject, token)

    def answer(self, portrait_id: str) -> dict[str, Any]:
        """As whoever may export it reads it."""
        return {**asdict(self), "portrait_id": portrait_id}


def _said(when: datetime.datetime) -> str:
    """A time in ISO 8601; one without a zone is UTC."""
    zoned = when if when.tzinfo is not None else when.replace(tzinfo=datetime.UTC)
    return zoned.astimezone(datetime.UTC).isoformat(timespec="seconds")


def _loaded(header: str) -> Any:
    if len(header) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS} characters")
    try:
        return json.loads(unquote(header, errors="strict"))
    except (ValueError, RecursionError):
        raise ValueError("no JSON object") from None
