"""Where a session may be sent to: what the operator allows, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from engine.errors import AvatarError

PORTS = {
    "rtmp": 1935,
    "rtmps": 443,
    "srt": 0,
    "livelink": 11_111,
    "osc": 39_539,
}  # 0: none is usual
SUFFIXES = {".mp4": "mp4", ".mkv": "matroska"}
_URL = re.compile(r"[!-\[\]-~]{1,1000}")  # printable, no space, no backslash
_FILE = re.compile(r"\w[\w .-]{0,99}", re.ASCII)
# Others would open a port here, or speak to somebody else.
_SRT_OPTIONS = {"streamid", "latency", "passphrase", "pbkeylen"}


class TargetRefused(AvatarError):
    """A target that cannot be used.

    `code` is bad_target, target_not_allowed or target_exists.
    """

    def __init__(
        self, code: Literal["bad_target", "target_not_allowed", "target_exists"], message: str
    ) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Address:
    """A place in the network."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def shown(self) -> str:
        """Without path and query, which may hold a key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return self.shown + self.path + (f"?{self.query}" if self.query else "")

    def within(self, allowed: Address) -> bool:
        """Whether it is `allowed`, or below it."""
        if (self.scheme, self.host, self.port) != (allowed.scheme, allowed.host, allowed.port):
            return False
        return f"{self.path}/".startswith(f"{allowed.path.rstrip('/')}/")


def read_address(url: str) -> Address:
    """Take an address apart; raises `TargetRefused` bad_target."""
    if not _URL.fullmatch(url):
        raise TargetRefused("bad_target", "a target is an address of up to 1000 plain characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TargetRefused("bad_target", f"the target is no address: {error}") from None
    if parts.scheme not in PORTS:
        known = ", ".join(PORTS)
        raise TargetRefused("bad_target", f"{parts.scheme[:20]!r} is not one of {known}, file")
    port = port or PORTS[parts.scheme]
    if not host or not port or "@" in parts.netloc or parts.fragment:
        raise TargetRefused("bad_target", f"the target is not like {parts.scheme}://host:port/path")
    if {".", ".."} & set(unquote(parts.path).split("/")):
        raise TargetRefused("bad_target", "the target's path goes up")
    if parts.scheme == "srt":
        unknown = {key for key, _ in parse_qsl(parts.query, keep_blank_values=True)} - _SRT_OPTIONS
        if unknown or ";" in parts.query:
            known = ", ".join(sorted(_SRT_OPTIONS))
            raise TargetRefused("bad_target", f"of SRT's options these may be given: {known}")
    return Address(parts.scheme, host, port, parts.path, parts.query)


def _folder(text: str) -> Path | None:
    """The folder that a path or a file: address names; None: it is no such thing."""
    if text.startswith("file:"):
        parts = urlsplit(text)
        return Path(unquote(parts.path)) if parts.netloc in ("", "localhost") else None
    return Path(text) if "://" not in text else None


class Targets:
    """What the operator allows: prefixes of addresses, and folders.

    Raises:
        TargetRefused: one of them is neither.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._addresses: list[Address] = []
        self._folders: list[Path] = []
        for text in allowed:
            folder = _folder(text)
            if folder is None:
                self._addresses.append(read_address(text))
            elif folder.is_absolute():
                self._folders.append(folder)
            else:
                raise TargetRefused("bad_target", f"{text!r} is no folder from the root on")

    def address(self, url: str, *schemes: str) -> Address:
        """Return the network target; raises `TargetRefused` if it is none of these, or not allowed."""
        target = read_address(url)
        if target.scheme not in schemes:
            raise TargetRefused("bad_target", f"{target.scheme} is not one of {', '.join(schemes)}")
        if not any(target.within(allowed) for allowed in self._addresses):
            raise TargetRefused(
                "target_not_allowed",
                f"{target.shown} is not allowed here; the server's --publish-to says what is",
            )
        return target

    def file(self, url: str) -> Path:
        """Return the file that may be made; raises `TargetRefused`.

        Links are followed before it is compared, so none leads out of an allowed folder.
        """
        path = _folder(url)
        if path is None or not path.is_absolute() or "\0" in url:
            raise TargetRefused("bad_target", "a file is given as file:///folder/name.mp4")
        if path.suffix not in SUFFIXES or not _FILE.fullmatch(path.name):
            raise TargetRefused("bad_target", "a file is name.mp4 or name.mkv, in plain letters")
        parent = path.parent.resolve()
        if not any(parent.is_relative_to(folder.resolve()) for folder in self._folders):
            raise TargetRefused(
                "target_not_allowed",
                "this folder is not allowed here; the server's --publish-to says which are",
            )
        return parent / path.name
