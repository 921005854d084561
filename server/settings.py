"""Settings of the server: frozen, checked once, merged from defaults, environment and flags."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from engine.config import from_mapping
from engine.errors import ConfigError
from engine.watermark.keys import check_key
from server.logs import LogFormat
from server.targets import TargetRefused, Targets

# Kubernetes sets NAME_PORT and the like for every service; none of its names ends with a dash, which
# would become the second underscore.
PREFIX = "PORTRAITTALK__"
BUNDLED_PORTRAIT = Path(__file__).parent / "data" / "astronaut.png"
BUNDLED_NAME = "Astronaut"
LEAST_SECRET = 32  # characters
_HOST = re.compile(r"\*|(\*\.)?[\w.-]+|\[?[0-9a-fA-F]*:[0-9a-fA-F:.]+\]?")
_ORIGIN = re.compile(r"\*|https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d+)?")
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
VideoCodec = Literal["vp8", "h264"]
Disclosure = Literal["auto", "on", "off"]
_LIMITS: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "max_sessions": (1, 1000),
    "capacity": (0, 1000),
    "engine_threads": (0, 64),
    "max_upload_bytes": (1024, 1 << 30),
    "portraits_kept": (1, 10_000),
    "connections": (0, 1_000_000),
    "connections_per_address": (0, 1_000_000),
    "drain_s": (0, 3600),
    "watchdog_s": (0.5, 3600),
    "connect_timeout_s": (0.5, 600),
    "resume_s": (0, 3600),
    "offers_per_address": (1, 1000),
    "max_watchers": (0, 10_000),
    "video_bitrate_bps": (100_000, 20_000_000),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything the server needs to know before it opens its port."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_sessions: int = 8  # the most viewers at once, however fast the machine is
    capacity: int = 0  # viewers that are served well at once; 0: measured at start
    engine_threads: int = 0  # that draw viewers side by side; 0: as is measured at start
    max_upload_bytes: int = 10 * 1024 * 1024
    portraits_kept: int = 32  # enrolled portraits in memory; the least recently used one goes
    connections: int = 0  # the most at once; 0: as many as the limit of descriptors leaves
    connections_per_address: int = 256  # of each network address; 0: no such limit
    drain_s: float = 30.0  # after SIGTERM, for what is being said
    log_format: LogFormat = "text"
    telemetry: bool = False  # a span of OpenTelemetry for each utterance
    watchdog_s: float = 10.0  # a viewer that sends no packet for so long is gone
    connect_timeout_s: float = 5.0  # an offer that leads to no connection for so long is dropped
    resume_s: float = 10.0  # a viewer that was lost may come back for so long
    offers_per_address: int = 4  # that may wait to be connected
    max_watchers: int = 100  # the most that only watch (WHEP), all sessions together
    auth_secret: tuple[str, ...] = dataclasses.field(default=(), repr=False)  # sign session tokens
    insecure: bool = False  # listen to a network without a secret
    bearer: str = dataclasses.field(default="", repr=False)  # lasting token of WHIP and WHEP
    ice_servers: tuple[str, ...] = ()  # stun:/turn: addresses; none is needed on one machine
    turn_secret: str = dataclasses.field(default="", repr=False)  # coturn's static-auth-secret
    allow_host: tuple[str, ...] = ()  # further names that the server answers to; *.example.org, *
    allow_origin: tuple[str, ...] = ()  # other pages that may use the server: https://example.org
    realtime_upstream: str = ""  # ws: or wss: address of a realtime model behind /v1/realtime
    realtime_key: str = dataclasses.field(default="", repr=False)  # for it; never shown
    allow_loopback: bool = True  # offer 127.0.0.1 as a candidate
    video_bitrate_bps: int = 1_200_000  # fixed: every change of bitrate costs a key frame
    codec: VideoCodec = "vp8"
    publish_to: tuple[str, ...] = ()  # folders and prefixes of addresses a session may be sent to
    camera: str = ""  # virtual camera of a video call: auto, or [backend:]device
    microphone: str = ""  # whose sound the face in the call says: default, or a part of its name
    loopback: str = ""  # sound device that the call takes for a microphone
    mark_key: str = dataclasses.field(default="", repr=False)  # of the invisible mark; "": public
    deployment: str = ""  # name that stands in the mark as a number
    c2pa_certificate: str = ""  # PEM file with which published files are signed; "": one of our own
    c2pa_key: str = ""  # PEM file of its key
    disclosure: Disclosure = "auto"  # say that it is AI-generated; auto: beyond this machine
    disclosure_label: str = "AI-generated"
    audit_log: str = ""  # file of JSON lines; "": with tokens the server's own log
    replica: str = ""  # name of this server in a cluster, which its sessions' ids begin with
    cluster_secret: str = dataclasses.field(default="", repr=False)  # of a cluster's servers
    frame_code: bool = False  # test mode: the code strip on every frame, /api/test/events

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}={value} is out of range; {low:g} to {high:g}")
        if self.codec not in ("vp8", "h264"):
            raise ConfigError(f"codec={self.codec!r} is unknown; vp8 or h264")
        if self.log_format not in ("text", "json"):
            raise ConfigError(f"log_format={self.log_format!r} is unknown; text or json")
        if not self.host or any(c.isspace() for c in self.host):
            raise ConfigError(
                f"host={self.host!r} is no address; 127.0.0.1 for this machine alone, 0.0.0.0 for "
                "every network"
            )
        if self.disclosure not in ("auto", "on", "off"):
            raise ConfigError(f"disclosure={self.disclosure!r} is unknown; auto, on or off")
        self._check_access()
        self._check_ice()
        if self.realtime_upstream and not self.realtime_upstream.startswith(("ws://", "wss://")):
            raise ConfigError(
                f"realtime_upstream={self.realtime_upstream!r} is not like wss://host/v1/realtime"
            )
        if bool(self.replica) != bool(self.cluster_secret):
            raise ConfigError("replica and cluster_secret are both set by portraittalk cluster")
        if (self.microphone or self.loopback) and not self.camera:
            raise ConfigError("microphone and loopback are those of a call: give a camera too")
        try:
            Targets(self.publish_to)
        except TargetRefused as error:
            raise ConfigError(f"publish_to: {error}") from None

    @property
    def disclosed(self) -> str | None:
        """The words of a visible label; None: there is to be none."""
        wanted = self.disclosure == "on" or not _is_loopback(self.host)
        return self.disclosure_label if wanted and self.disclosure != "off" else None

    def _check_access(self) -> None:
        """Who gets in: secrets, names and origins."""
        if not (_is_loopback(self.host) or self.auth_secret or self.insecure):
            raise ConfigError(
                f"host={self.host!r} lets the network in, and anybody there could use the server: "
                "give it an --auth-secret, of which your back end makes tokens, or say --insecure"
            )
        if any(len(secret) < LEAST_SECRET for secret in self.auth_secret):
            raise ConfigError(
                f"auth_secret: a secret has at least {LEAST_SECRET} characters; this makes one: "
                "openssl rand -hex 32"
            )
        check_key(self.mark_key)
        if self.bearer and not _BEARER.fullmatch(self.bearer):
            raise ConfigError(
                "bearer: a token has letters, digits and -._~+/ alone, then = perhaps"
            )
        for host in self.allow_host:
            if not _HOST.fullmatch(host):
                raise ConfigError(
                    f"allow_host: {host!r} is no name or address without a port; nor *.name, nor *"
                )
        for origin in self.allow_origin:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"allow_origin: {origin!r} is not like https://example.org or"
                    " http://example.org:3000; nor *"
                )

    def _check_ice(self) -> None:
        for address in self.ice_servers:
            if not address.startswith(("stun:", "turn:", "turns:")):
                raise ConfigError(f"ice_servers: {address!r} does not start with stun: or turn:")
            if not (address.startswith("stun:") or self.turn_secret):
                raise ConfigError(
                    f"ice_servers: {address!r} needs a turn_secret: a browser takes no TURN server "
                    "without a password, which is made of it (coturn: static-auth-secret)"
                )

    @classmethod
    def merge(cls, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Self:
        """Merge defaults < `PORTRAITTALK__*` variables < `flags`; a flag that is None was not given.

        Raises:
            ConfigError: an unknown name, a value that cannot be read or is out of range.
        """
        kinds = typing.get_type_hints(cls)
        raw: dict[str, Any] = {}
        for key, text in environ.items():
            if key.startswith(PREFIX):
                name = key.removeprefix(PREFIX).lower()
                raw[name] = _read(key, text, kinds[name]) if name in kinds else text
        raw.update({name: value for name, value in flags.items() if value is not None})
        return from_mapping(cls, raw)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _read(key: str, text: str, kind: Any) -> Any:
    """Read one environment variable as `kind`."""
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"{key}={text!r} is neither yes nor no")
        return text.lower() in _TRUE
    if isinstance(kind, types.GenericAlias):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"{key}={text!r} is not a number") from None
    return text
