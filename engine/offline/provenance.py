"""How a file says that it is synthetic: an invisible mark in its frames, and content credentials."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.offline.credentials import Credentials
from engine.watermark.keys import check_key
from engine.watermark.mark import Mark
from engine.watermark.payload import Payload


@dataclass(frozen=True, slots=True)
class Provenance:
    """What files are marked and signed with.

    Args:
        mark_key: of the invisible mark; "": the public one.
        deployment: name that stands in the mark as a number.
        credentials: None: the package that signs is not installed.

    Raises:
        ConfigError: the key is short.
    """

    mark_key: str = field(default="", repr=False)
    deployment: str = ""
    credentials: Credentials | None = field(default_factory=Credentials.chosen)

    def __post_init__(self) -> None:
        check_key(self.mark_key)

    @property
    def dependence(self) -> str:
        """What frames depend on beside what they show."""
        return f"{self.mark_key}/{self.deployment}"

    def mark_of(self, run: str) -> Mark:
        """What the frames of that run carry."""
        return Mark(Payload.of(self.deployment, run), self.mark_key)
