"""The cluster from start to end, around what Ray keeps running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from server.cluster.options import ClusterOptions
from server.extras import extra
from server.settings import PREFIX, ServerSettings


def environment_of(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a replica: those of the cluster, its flags, and what the ingress stands for.

    `given` holds fields of `ServerSettings`, None where they were not.
    """
    kept = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    for name, value in given.items():
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            kept[PREFIX + name.upper()] = text
    # Reached by the ingress alone, which has looked at Host, Origin and who asks how often.
    own = {"ALLOW_HOST": "*", "INSECURE": "1", "CONNECTIONS_PER_ADDRESS": "0"}
    return kept | {PREFIX + name: value for name, value in own.items()}


def serve_cluster(
    options: ClusterOptions,
    settings: ServerSettings,
    command: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    """Serve until told to stop; prints the address once the replicas are ready.

    Raises:
        BackendUnavailable: the extra `ray` is not installed, or the replicas do not start.
        ConfigError: the address cannot be listened on.
    """
    with extra("ray"):
        from ray.exceptions import RayError

        from server.cluster import replicas
        from server.cluster.ingress import create_ingress
    from server.web.serving import Server, listen

    secret, known = secrets.token_hex(32), dict[str, str]()
    with contextlib.closing(listen(settings)) as bound, contextlib.ExitStack() as stack:
        stack.callback(replicas.stop)
        everywhere = {**environment, f"{PREFIX}CLUSTER_SECRET": secret}
        directory = replicas.start(options, command, everywhere, settings.drain_s)

        async def find() -> dict[str, str]:
            if app.state.draining:  # a call would start Ray anew
                return known
            with contextlib.suppress(RayError):  # those that are known go on meanwhile
                found = await directory.all.remote()
                known.clear()
                known.update(found)
            return known

        async def drain() -> None:
            app.state.draining = True
            stack.pop_all()
            await asyncio.to_thread(replicas.stop)

        app = create_ingress(settings, secret, find)
        server = Server(app, settings, lambda port: _announce(settings.host, port), drain)
        with contextlib.suppress(KeyboardInterrupt):
            server.run([bound])
    if not server.started:
        raise typer.Exit(1)


def _announce(host: str, port: int) -> None:
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else host
    typer.echo(f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/")


def end_with_input() -> None:
    """In a replica: once its standard input ends, which its actor holds, drain and end."""

    def watch() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="actor", daemon=True).start()
