"""Two machines on one wire, in network namespaces of their own: one can move to another address."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER_IP = "10.77.0.1"
FIRST_IP, SECOND_IP = "10.77.0.2", "10.77.0.3"


class NoNetwork(Exception):
    """This machine lets nobody make network namespaces."""


def ip(*words: str) -> None:
    """Run `ip`; raises `NoNetwork` with what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetwork(f"ip {' '.join(words)}: {done.stderr.strip()}")


@dataclass
class Wire:
    """The two namespaces."""

    server: str
    client: str

    def inside(self, name: str, *command: str) -> tuple[str, ...]:
        """A command that runs in one of them."""
        return ("ip", "netns", "exec", name, *command)

    def block(self, port: int) -> None:
        """Lose every datagram of this port of the server from now on, both ways."""
        for name, end in ((self.server, "sport"), (self.client, "dport")):
            ip("-n", name, "rule", "add", "ipproto", "udp", end, str(port), "blackhole")

    def move(self) -> None:
        """Give the client another address; what it had open is cut off."""
        ip("-n", self.client, "addr", "add", f"{SECOND_IP}/24", "dev", "eth")
        ip("-n", self.client, "addr", "del", f"{FIRST_IP}/24", "dev", "eth")
        ip("-n", self.client, "addr", "replace", f"{SECOND_IP}/24", "dev", "eth")


@contextmanager
def wire() -> Iterator[Wire]:
    """Make both, joined; raises `NoNetwork`."""
    if shutil.which("ip") is None:
        raise NoNetwork("there is no `ip` (Debian: iproute2)")
    made = Wire(f"pt{os.getpid()}s", f"pt{os.getpid()}c")
    try:
        for name in (made.server, made.client):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        peer = ("peer", "name", "eth", "netns", made.server)
        ip("-n", made.client, "link", "add", "eth", "type", "veth", *peer)
        for name, address in ((made.server, SERVER_IP), (made.client, FIRST_IP)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth")
            ip("-n", name, "link", "set", "eth", "up")
        yield made
    finally:
        for name in (made.server, made.client):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def running(command: tuple[str, ...], log: Path, cwd: Path) -> Iterator[str]:
    """Run a server that listens everywhere until the block ends; gives its port once it has said it."""
    with log.open("wb") as out:
        env = {**os.environ, "PORTRAITTALK__HOST": "0.0.0.0", "PORTRAITTALK__INSECURE": "1"}
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        end = time.monotonic() + 60
        while "http://" not in (said := log.read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)
        yield said.split("http://")[1].split("/")[0].split(":")[1]
    finally:
        process.terminate()
        process.wait(10)
