"""A bad network on the loopback: a UDP relay that loses, delays and reorders, the same every time.

ICE works through it as through a NAT. The server must not know the viewer's own addresses, and the
viewer must know the relay's instead of the server's:

    async with relaying(up=Line(delay=uniform(0.12)), down=Line()) as relay:
        offer = without_candidates(offer)       # before it is sent to the server
        answer = relay.through(answer)          # before it is given to the viewer

A line can be changed while it is used. Each datagram's fate is drawn from the line's seed in the
order in which they come; the timers are the event loop's, about a millisecond late.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]
Delay = Callable[[random.Random], float]
CANDIDATE = re.compile(r"^a=candidate:(\S+) 1 udp (\d+) (\S+) (\d+) typ host\b.*$", re.M | re.I)
CANDIDATE_LINES = re.compile(r"^a=(candidate:[^\r\n]*|end-of-candidates)\r?\n", re.M)


def uniform(most_s: float) -> Delay:
    """Any delay up to that; `uniform(0.12)` is 60 ms of jitter either way."""
    return lambda rng: rng.uniform(0, most_s)


@dataclass
class Line:
    """What happens to the datagrams of one direction."""

    loss: float = 0.0
    delay: Delay = uniform(0)  # in seconds
    in_order: bool = False  # later ones wait for those before them
    media_only: bool = True  # STUN, DTLS and RTCP pass unharmed
    seed: int = 0
    passed: int = 0
    lost: int = 0
    _last: float = 0.0
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def carry(self, data: bytes, send: Callable[[bytes], object]) -> None:
        """Send a datagram when its time has come, or never."""
        if self.media_only and not is_media(data):
            send(data)
            return
        lost, delay = self._rng.random() < self.loss, self.delay(self._rng)
        if lost:
            self.lost += 1
            return
        self.passed += 1
        loop = asyncio.get_running_loop()
        at = loop.time() + delay
        if self.in_order:
            at = max(at, self._last + 1e-6)  # timers of the same time may run in any order
        self._last = at
        loop.call_at(at, send, data)


def is_media(data: bytes) -> bool:
    """Whether a datagram is RTP, and not RTCP, DTLS or STUN (RFC 7983, RFC 5761)."""
    return len(data) > 1 and 128 <= data[0] <= 191 and not 192 <= data[1] <= 223


def without_candidates(sdp: str) -> str:
    """An offer whose sender can only be found by where its datagrams come from."""
    return CANDIDATE_LINES.sub("", sdp)


class Relay:
    """Passes datagrams on between viewers and one server, each viewer over a socket of its own."""

    def __init__(self, up: Line, down: Line) -> None:
        self.up, self.down = up, down
        self.port = 0
        self._server: Address | None = None
        self._door: asyncio.DatagramTransport | None = None
        self._sockets: dict[Address, asyncio.Task[asyncio.DatagramTransport]] = {}

    async def open(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._door = await _socket(self._from_viewer, local=("127.0.0.1", 0))
        self.port = self._door.get_extra_info("sockname")[1]

    async def close(self) -> None:
        """Close every socket; what is on its way is lost."""
        for task in self._sockets.values():
            (await task).close()
        if self._door is not None:
            self._door.close()

    def through(self, sdp: str) -> str:
        """Make the server of this answer known by the relay's address alone, and relay to it.

        Raises:
            ValueError: it has no host candidate.
        """
        found = [(ip, int(port)) for _, _, ip, port in CANDIDATE.findall(sdp) if ":" not in ip]
        if not found:
            raise ValueError("the answer has no host candidate to relay to")
        self._server = next((each for each in found if each[0] == "127.0.0.1"), found[0])
        ours = f"a=candidate:relay 1 udp 2130706431 127.0.0.1 {self.port} typ host"
        kept, end = CANDIDATE.sub("", sdp, count=0), "a=end-of-candidates"
        lines = [line for line in without_candidates(kept).splitlines() if line]
        media = [i for i, line in enumerate(lines) if line.startswith("m=")]
        at = media[1] if len(media) > 1 else len(lines)  # they belong to the first, all are bundled
        return "\r\n".join([*lines[:at], ours, end, *lines[at:]]) + "\r\n"

    def _from_viewer(self, data: bytes, viewer: Address) -> None:
        self.up.carry(data, lambda late: self._to_server(late, viewer))

    def _to_server(self, data: bytes, viewer: Address) -> None:
        if viewer not in self._sockets:
            opening = _socket(lambda back, _: self._from_server(back, viewer), remote=self._server)
            self._sockets[viewer] = asyncio.ensure_future(opening)
        task = self._sockets[viewer]
        if task.done():
            task.result().sendto(data)
        else:
            task.add_done_callback(lambda done: done.result().sendto(data))

    def _from_server(self, data: bytes, viewer: Address) -> None:
        self.down.carry(data, lambda late: self._to_viewer(late, viewer))

    def _to_viewer(self, data: bytes, viewer: Address) -> None:
        if self._door is not None and not self._door.is_closing():
            self._door.sendto(data, viewer)


@asynccontextmanager
async def relaying(up: Line | None = None, down: Line | None = None) -> AsyncIterator[Relay]:
    """Relay until the block ends; `up` is from viewers to the server."""
    relay = Relay(up or Line(), down or Line())
    await relay.open()
    try:
        yield relay
    finally:
        await relay.close()


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self.datagram_received = received  # type: ignore[method-assign]


async def _socket(
    received: Callable[[bytes, Address], None], **addresses: Any
) -> asyncio.DatagramTransport:
    """Open a UDP socket from `local` or to `remote`."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Socket(received),
        local_addr=addresses.get("local"),
        remote_addr=addresses.get("remote"),
    )
    return transport
