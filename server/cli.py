"""The command `portraittalk`. Heavy imports are made inside the commands, so that --help is quick."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from engine.cli import app as engine_commands
from engine.errors import AvatarError, ConfigError
from engine.option_groups import given, with_groups
from engine.options import CheckpointOptions, EngineOptions, SamplingOptions
from engine.provenance_cli import detect
from engine.telemetry import silence
from exports.cli import app as export_commands
from server.cluster.options import ClusterOptions
from server.cluster.run import environment_of, serve_cluster
from server.evaluation.command import app as evaluation_commands
from server.livekit_worker import app as livekit_commands
from server.logs import configure
from server.options import ServerOptions
from server.run import run_server
from server.settings import BUNDLED_PORTRAIT, ServerSettings
from server.trust.tokens import ACCESSES, sign

MAX_BATCH = 8  # streams that are stepped together at most: a program is compiled for 1, 2, 4 and 8

app = typer.Typer(
    help="A portrait that talks, live in the browser, on a plain CPU.\n\n"
    "Start with: portraittalk serve",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)


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
    from server.capacity import processors

    several = {
        "batch": min(settings.max_sessions, MAX_BATCH),
        # a quota of the control group may leave less than two of the processors that there are
        "engine_threads": settings.engine_threads or (0 if processors() >= 2 else 1),
    }
    config = make_config(
        engine.profile,
        {**engine.common(), **several},
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
