"""A server as a subprocess, for end-to-end tests and benchmarks."""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.environment import ROOT
from benchmarks.quota import held_to

SERVE = (sys.executable, "-m", "server.cli", "serve")


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--server-command` and `--cores`: which server a benchmark measures."""
    parser.add_argument(
        "--server-command",
        type=shlex.split,
        default=list(SERVE),
        help="program to measure; gets --port N --frame-code (default: this checkout's server)",
    )
    parser.add_argument(
        "--cores", type=float, help="hold the server to so many processors (needs root on Linux)"
    )


def measured_server(log: Path, options: argparse.Namespace) -> ServerProcess:
    """The server that the command line names, in test mode."""
    command = tuple(options.server_command)
    return ServerProcess(log, command, ("--frame-code",), cores=options.cores)


def describe_server(options: argparse.Namespace) -> dict[str, Any]:
    """What of those arguments a result keeps."""
    command = shlex.join(Path(part).name for part in options.server_command)
    return {"server_cores": options.cores, "server_command": command}


class ServerDied(Exception):
    """The server ended or did not answer in time; the message holds the end of its output."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether there is a page at `url`."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class ServerProcess:
    """Runs `command --port N args` and waits until `/healthz` answers.

    Args:
        command: the program; `SERVE` is this repository's own server.
        args: more arguments, as `("--frame-code",)`.
        log: file that takes the output of the server.
        port: port to use; a free one by default.
        ready_s: seconds the server may take until it answers.
        cores: processors that it is held to once it answers, if any limit.
    """

    def __init__(
        self,
        log: Path,
        command: tuple[str, ...] = SERVE,
        args: tuple[str, ...] = (),
        *,
        port: int | None = None,
        ready_s: float = 120.0,
        cores: float | None = None,
    ) -> None:
        self.log = log
        self.port = port or free_port()
        self.command = (*command, "--port", str(self.port), *args)
        self.ready_s, self.cores = ready_s, cores
        self._held = ExitStack()
        self.started_in_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the page, without a closing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process number of the running server."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        begun = time.monotonic()
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
            )
        while not answers(f"{self.url}/healthz"):
            if self._process.poll() is not None:
                raise ServerDied(
                    f"the server ended with {self._process.returncode}:\n{self.tail()}"
                )
            if time.monotonic() - begun > self.ready_s:
                self.stop()
                raise ServerDied(f"no answer in {self.ready_s:.0f} s:\n{self.tail()}")
            time.sleep(0.05)
        self.started_in_s = time.monotonic() - begun
        if self.cores is not None:
            self._held.enter_context(held_to(self._process.pid, self.cores))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server: politely, then for good after 5 s."""
        if self._process is None:
            return
        self._held.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def get(self, path: str) -> Any:
        """The JSON at `path`; raises `urllib.error.URLError` when there is none."""
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return json.load(response)

    def tail(self, lines: int = 30) -> str:
        """The last lines of the server's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
