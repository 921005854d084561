"""Options of the commands that serve: each group is a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from server.logs import LogFormat
from server.settings import Disclosure, VideoCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Fields of `ServerSettings`, as far as they are options."""

    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")
    ] = None
    port: Annotated[int | None, typer.Option(help="Port of the page; 0 picks a free one.")] = None
    max_sessions: Annotated[
        int | None, typer.Option(help="The most viewers at once; one more is told to wait.")
    ] = None
    capacity: Annotated[
        int | None,
        typer.Option(help="Viewers that this machine serves well; measured at start if not given."),
    ] = None
    engine_threads: Annotated[
        int | None,
        typer.Option(
            help="Threads that draw viewers side by side, on a CPU in the tiny profile; as measured at start."
        ),
    ] = None
    codec: Annotated[VideoCodec | None, typer.Option(help="Video codec to prefer.")] = None
    video_bitrate_bps: Annotated[
        int | None, typer.Option("--bitrate", help="Video bits per second, fixed.")
    ] = None
    connections: Annotated[
        int | None,
        typer.Option(help="The most connections; as many as the limit of descriptors leaves."),
    ] = None
    connections_per_address: Annotated[
        int | None, typer.Option(help="The most of one network address; 0 for no limit.")
    ] = None
    drain_s: Annotated[
        float | None,
        typer.Option("--drain", help="Seconds after SIGTERM that what is being said may last."),
    ] = None
    log_format: Annotated[
        LogFormat | None, typer.Option(help="text, or json: one object a line, with session ids.")
    ] = None
    telemetry: Annotated[
        bool | None,
        typer.Option(
            "--telemetry",
            help="Send a span of each utterance (OpenTelemetry, extra telemetry); where to is said by "
            "OTEL_EXPORTER_OTLP_ENDPOINT.",
        ),
    ] = None
    watchdog_s: Annotated[
        float | None, typer.Option("--watchdog", help="Seconds of silence before a viewer is gone.")
    ] = None
    connect_timeout_s: Annotated[
        float | None,
        typer.Option("--connect-timeout", help="Seconds that an offer may take to connect."),
    ] = None
    resume_s: Annotated[
        float | None,
        typer.Option("--resume", help="Seconds that a viewer who was lost may come back for."),
    ] = None
    offers_per_address: Annotated[
        int | None,
        typer.Option(help="Offers of one network address that may wait to be connected."),
    ] = None
    ice_servers: Annotated[
        list[str] | None,
        typer.Option("--ice-server", help="stun: or turn: address; may be given again."),
    ] = None
    turn_secret: Annotated[
        str | None,
        typer.Option(
            help="Secret of the turn: servers (coturn's static-auth-secret), of which passwords are "
            "made that last a day; better PORTRAITTALK__TURN_SECRET."
        ),
    ] = None
    realtime_upstream: Annotated[
        str | None,
        typer.Option(
            help="wss: address of a realtime model that speaks through the avatar at /v1/realtime; "
            "its key in PORTRAITTALK__REALTIME_KEY."
        ),
    ] = None
    max_watchers: Annotated[
        int | None, typer.Option(help="The most that only watch (WHEP), all sessions together.")
    ] = None
    bearer: Annotated[
        str | None,
        typer.Option(
            help="Token that WHIP and WHEP clients must send; better PORTRAITTALK__BEARER."
        ),
    ] = None
    auth_secret: Annotated[
        list[str] | None,
        typer.Option(
            help="Secret of 32 characters or more with which your back end signs session tokens; may be "
            "given again to change it. Better PORTRAITTALK__AUTH_SECRET."
        ),
    ] = None
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Listen to a network without a secret.")
    ] = None
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Further name of this server; may be given again.")
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Other page that may use this server, https://site; may be given again."),
    ] = None
    publish_to: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder, or begin of an address (rtmp://host/app, srt://host:port, livelink://host,"
            " osc://host), that a session may be sent to; may be given again."
        ),
    ] = None
    camera: Annotated[
        str | None,
        typer.Option(help="Show a session on this virtual camera: auto, or [backend:]device."),
    ] = None
    microphone: Annotated[
        str | None,
        typer.Option(help="Sound device that the face in the call repeats: default, or its name."),
    ] = None
    mark_key: Annotated[
        str | None,
        typer.Option(
            help="Key of the invisible mark in each picture; the public one without it, which "
            "everybody can read. Better PORTRAITTALK__MARK_KEY."
        ),
    ] = None
    deployment: Annotated[
        str | None, typer.Option(help="Name that stands in the mark as a number.")
    ] = None
    c2pa_certificate: Annotated[
        str | None,
        typer.Option(
            help="PEM file of certificates, the signer's first, for the files of --publish-to; one "
            "made for development without it."
        ),
    ] = None
    c2pa_key: Annotated[str | None, typer.Option(help="PEM file of its key.")] = None
    disclosure: Annotated[
        Disclosure | None,
        typer.Option(
            help="Tell viewers by a message and a label that it is AI-generated; auto: those of a "
            "server that listens beyond this machine."
        ),
    ] = None
    disclosure_label: Annotated[str | None, typer.Option(help="Words of that label.")] = None
    audit_log: Annotated[
        str | None,
        typer.Option(help="File to which who enrolled, deleted and had sessions is added, JSON."),
    ] = None
    loopback: Annotated[
        str | None,
        typer.Option(help="Sound device that gets its voice, which the call takes as microphone."),
    ] = None
