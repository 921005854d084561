"""The command `portraittalk`. Heavy imports are made inside the commands, so that --help is quick."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer

from engine.cli import app as engine_commands
from engine.errors import AvatarError, ConfigError
from engine.options import CheckpointOptions, EngineOptions, SamplingOptions, given, with_groups
from engine.provenance_cli import detect
from engine.telemetry import silence
from exports.cli import app as export_commands
from server.cluster.options import ClusterOptions
from server.cluster.run import environment_of, serve_cluster
from server.evaluation.command import app as evaluation_commands
from server.livekit_worker import app as livekit_commands
from server.logs import LogFormat, configure
from server.run import run_server
from server.settings import BUNDLED_PORTRAIT, Disclosure, ServerSettings, VideoCodec
from server.trust.tokens import ACCESSES, sign

MAX_BATCH = 8  # streams that are stepped together at most: a program is compiled for 1, 2, 4 and 8

app = typer.Typer(
    help="A portrait that talks, live in the browser, on a plain CPU.\n\n"
    "Start with: portraittalk serve",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)


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


@app.command()
@with_groups
def serve(
    server: ServerOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    checkpoints: CheckpointOptions,
    frame_code: Annotated[
        bool | None,
        typer.Option("--frame-code", help="Test mode: a code strip on every frame, beep times."),
    ] = None,
) -> None:
    """Serve the page and the talking portrait.

    Loads the engine, enrols the bundled portrait, then prints one address to open in a browser.
    On one machine nothing else is needed: no STUN server, no certificate. From another machine a
    browser gives its microphone only to https pages.

    Host to offers per address, ICE servers, watchers, secrets, allowed hosts and origins, and frame code
    can be set as variables too: `PORTRAITTALK__PORT=9000`, `PORTRAITTALK__MAX_SESSIONS=1`,
    `PORTRAITTALK__ALLOW_ORIGIN=https://a.example`. A flag wins over a variable.
    """
    settings = ServerSettings.merge(os.environ, {**given(server), "frame_code": frame_code})
    configure(settings.log_format)  # before the engine loads, which says how
    if settings.camera:
        from server.doors.camera import CallDevices, check_devices

        check_devices(CallDevices.chosen(settings))
    from engine.profiles import load_profile
    from engine.profiles.choose import how_heard, how_slow, make_config, seconds_a_frame

    config = make_config(
        engine.profile,
        {**engine.common(), "batch": min(settings.max_sessions, MAX_BATCH)},
        {**given(sampling), **given(checkpoints)},
        live=True,
    )
    loaded = load_profile(config)
    if config.speech != "tiny":
        typer.echo(how_heard(loaded.config))
    if config.profile == "sd15":
        from engine.face.image_file import decode_image

        seconds = seconds_a_frame(loaded, decode_image(BUNDLED_PORTRAIT.read_bytes()))
        typer.echo(f"sd15: {how_slow(seconds, config.stream.frame_ms)}")
    run_server(loaded, settings)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@with_groups
def cluster(context: typer.Context, server: ServerOptions, options: ClusterOptions) -> None:
    """Serve from several processes or machines as one server, on Ray (extra `ray`).

    Each replica is a `portraittalk serve`; what else that takes (`--profile`, checkpoints) is given on
    to it. Machines join by `ray start --address HEAD:6379`; then `portraittalk cluster --ray-address auto`
    on the head. Browsers reach one address for pages and signalling, and each replica by UDP for media.
    """
    flags = given(server)
    settings = ServerSettings.merge(os.environ, flags)
    configure(settings.log_format)
    command = [sys.executable, "-m", "server.cli", "serve", *context.args]
    serve_cluster(options, settings, command, environment_of(flags, os.environ))


@app.command()
def token(
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="view, speak, control or portraits; may be given again. All if not given."
        ),
    ] = None,
    expires: Annotated[float, typer.Option(help="Seconds until it is over.")] = 3600.0,
    subject: Annotated[str, typer.Option(help="Whose it is: portraits belong to it.")] = "somebody",
    auth_secret: Annotated[
        str | None,
        typer.Option(help="The server's secret; better the variable PORTRAITTALK__AUTH_SECRET."),
    ] = None,
) -> None:
    """Print a session token, for trying; your own back end makes those of your users.

    The server must have the same secret.
    """
    given_secret = (auth_secret,) if auth_secret else None
    settings = ServerSettings.merge(os.environ, {"auth_secret": given_secret, "insecure": True})
    if not settings.auth_secret:
        raise ConfigError("there is no secret: set PORTRAITTALK__AUTH_SECRET, or --auth-secret")
    unknown = set(scope or ()) - set(ACCESSES)
    if unknown:
        raise ConfigError(
            f"scope {', '.join(sorted(unknown))!r}: it is one of {', '.join(ACCESSES)}"
        )
    ends = time.time() + expires
    typer.echo(sign(settings.auth_secret[0], subject, scope or ACCESSES, ends))


app.add_typer(engine_commands)
app.add_typer(export_commands)
app.command()(detect)
app.add_typer(livekit_commands)
app.add_typer(evaluation_commands)


def main() -> None:
    """Run the command; an error of ours is one line, not a traceback."""
    silence()
    try:
        app()
    except AvatarError as error:
        typer.echo(f"portraittalk: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
