"""Serves an engine until it is told to stop. Heavy imports are made inside, as in `server.cli`."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from engine.types import Engine
    from server.settings import ServerSettings


def run_server(engine: Engine, settings: ServerSettings) -> None:
    """Serve `engine` until interrupted; prints the address once everything is warm."""
    from engine.face.image_file import decode_image
    from server.app import create_app
    from server.priority import others_give_way
    from server.settings import BUNDLED_NAME, BUNDLED_PORTRAIT
    from server.web.draining import drain
    from server.web.serving import Server, listen

    # Pillow warns about what is wrong with uploaded pictures: they are refused or read all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    portrait = decode_image(BUNDLED_PORTRAIT.read_bytes())
    app = create_app(engine, settings, portrait, BUNDLED_NAME)

    def announce(port: int) -> None:
        host = settings.host
        shown = f"[{host}]" if ":" in host else host
        shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else shown
        typer.echo(f"http://{shown}:{port}/")

    if settings.replica:
        from server.cluster.run import end_with_input

        end_with_input()
    sys.setswitchinterval(0.001)  # the loop paces sound: it must not wait long for the engine
    others_give_way()
    server = Server(app, settings, announce, lambda: drain(app.state.service, settings.drain_s))
    with contextlib.closing(listen(settings)) as bound:
        with contextlib.suppress(KeyboardInterrupt):  # raised again after a clean stop
            server.run([bound])
    if not server.started:
        raise typer.Exit(1)
