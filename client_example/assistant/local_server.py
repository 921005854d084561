"""The server that the assistant talks to: the one that runs, or one of our own."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import typer

USUAL = "http://localhost:8080"


class NoServer(Exception):
    """There is none; the message says what to do."""


def runs(url: str) -> bool:
    """Whether a server answers at `url`."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The address of the server at `url`; without one that of the usual port, or of one that is started here.

    Raises:
        NoServer: none answers at `url`, or ours does not start.
    """
    if url is not None:
        if not runs(url.rstrip("/")):
            raise NoServer(f"no server answers at {url}; start one with `portraittalk serve`")
        yield url.rstrip("/")
    elif runs(USUAL):
        yield USUAL
    else:
        typer.echo(f"No server at {USUAL}: one is started.")
        command = [sys.executable, "-m", "server.cli", "serve", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield _address(process)
            finally:
                process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    """Wait for the line that says it."""
    for line in process.stdout or ():
        if line.startswith("http://"):
            return line.strip().rstrip("/")
    raise NoServer("the server did not start; its own words are above")
