"""Serves an engine until it is told to stop. Heavy imports are made inside, as in `server.cli`."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from engine.types import Engine
    from server.settings import ServerSettings

BUNDLED_PORTRAIT = Path(__file__).parent / "data" / "astronaut.png"
BUNDLED_NAME = "Astronaut"


def run_server(engine: Engine, settings: ServerSettings) -> None:
    """Serve `engine` until interrupted; prints the address once everything is warm."""
    import uvicorn

    from engine.face.image_file import decode_image
    from server.app import create_app
    from server.priority import others_give_way

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Pillow warns about what is wrong with uploaded pictures: they are refused or read all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    portrait = decode_image(BUNDLED_PORTRAIT.read_bytes())
    app = create_app(engine, settings, portrait, BUNDLED_NAME)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
            await super().startup()
            if self.started:
                gc.collect()
                gc.freeze()  # what lives as long as the server is not looked through again
                host, port = self.servers[0].sockets[0].getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else shown
                typer.echo(f"http://{shown}:{port}/")

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        ws="websockets-sansio",
        timeout_graceful_shutdown=3,
    )
    sys.setswitchinterval(0.001)  # the loop paces sound: it must not wait long for the engine
    others_give_way()
    server = Announcing(config)
    with contextlib.suppress(KeyboardInterrupt):  # raised again after a clean stop
        server.run()
    if not server.started:
        raise typer.Exit(1)
