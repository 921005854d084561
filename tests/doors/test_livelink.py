"""Live Link and OSC, received as their receivers do."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import AsyncIOOSCUDPServer

from benchmarks.voice import wav
from engine.face import arkit
from engine.types import FaceMotion
from server.doors.livelink import head_turn, live_link, live_link_values
from server.settings import ServerSettings
from tests.server.live import Live, serving, until

JAW = arkit.index("jawOpen")


@dataclass
class Packet:
    """Live Link Face as its public description has it, read from the front."""

    device: str
    subject: str
    frame: int
    subframe: float
    rate: tuple[int, int]
    values: tuple[float, ...]

    @classmethod
    def read(cls, data: bytes) -> Packet:
        at = 0

        def take(kind: str) -> tuple[float, ...]:
            nonlocal at
            values = struct.unpack_from(f">{kind}", data, at)
            at += struct.calcsize(f">{kind}")
            return values

        def text() -> str:
            nonlocal at
            (length,) = take("i")
            at += int(length)
            return data[at - int(length) : at].decode()

        assert take("B") == (6,)
        device, subject = text(), text()
        (frame,), (subframe,), (numerator, denominator) = take("i"), take("f"), take("ii")
        (count,) = take("B")
        values = take(f"{int(count)}f")
        assert at == len(data)
        return cls(
            device, subject, int(frame), subframe, (int(numerator), int(denominator)), values
        )


@dataclass
class Ear(asyncio.DatagramProtocol):
    """Takes Live Link packets, each with the time it came."""

    packets: list[tuple[float, Packet]] = field(default_factory=list)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.packets.append((time.monotonic(), Packet.read(data)))

    @property
    def jaws(self) -> list[float]:
        return [packet.values[JAW] for _, packet in self.packets]


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Ear, int]]:
    transport, ear = await asyncio.get_running_loop().create_datagram_endpoint(
        Ear, local_addr=("127.0.0.1", 0)
    )
    try:
        yield ear, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@asynccontextmanager
async def session_for(port: int, scheme: str) -> AsyncIterator[tuple[Live, str]]:
    settings = ServerSettings(port=0, publish_to=(f"{scheme}://127.0.0.1:{port}",))
    async with serving(settings=settings) as live:
        made = await live.http.post("/api/sessions", json={})
        yield live, f"/api/sessions/{made.json()['session_id']}"


def test_a_packet_is_as_long_as_the_app_makes_it() -> None:
    motion = FaceMotion(
        np.linspace(0, 1, 52, dtype=np.float32), np.float32([0.1, -0.2, 0.3, 0, 0, 0]), 0.0
    )
    midnight = time.mktime((2026, 3, 4, 0, 0, 0, 0, 0, -1))
    data = live_link("iPhone", 25)(motion, midnight + 3601.5)
    assert len(data) == 312
    packet = Packet.read(data)
    assert (packet.subject, packet.rate, len(packet.device)) == ("iPhone", (25, 1), 36)
    assert packet.frame + packet.subframe == pytest.approx(3601.5 * 25, abs=0.01)
    np.testing.assert_allclose(packet.values[:52], motion.coefficients)
    np.testing.assert_allclose(packet.values[52:55], [0.1, -0.2, 0.3], rtol=1e-6)


def test_both_eyes_turn_to_where_they_look() -> None:
    coefficients = np.zeros(52, np.float32)
    coefficients[arkit.indices("eyeLookOutLeft", "eyeLookInRight", "eyeLookDownLeft")] = 1
    values = live_link_values(FaceMotion(coefficients, np.zeros(6, np.float32), 0.0))
    left_yaw, left_pitch, left_roll, right_yaw, right_pitch, right_roll = values[55:]
    assert left_yaw == right_yaw != 0
    assert left_pitch > 0 == right_pitch
    assert left_roll == right_roll == 0


@pytest.mark.parametrize(
    ("turns", "looks", "up"),
    [
        ((0, 0, 0), (0, 0, 1), (0, 1, 0)),
        # The image's right is the head's left.
        ((0.5, 0, 0), (-math.sin(0.5), 0, math.cos(0.5)), (0, 1, 0)),
        ((0, 0.5, 0), (0, -math.sin(0.5), math.cos(0.5)), (0, math.cos(0.5), math.sin(0.5))),
        ((0, 0, 0.5), (0, 0, 1), (-math.sin(0.5), math.cos(0.5), 0)),
    ],
)
def test_the_head_of_an_avatar_turns_as_ours_does(
    turns: tuple[float, float, float],
    looks: tuple[float, float, float],
    up: tuple[float, float, float],
) -> None:
    x, y, z, w = head_turn(*turns)
    forward = (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    upward = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    np.testing.assert_allclose(forward, looks, atol=1e-6)
    np.testing.assert_allclose(upward, up, atol=1e-6)
    assert math.hypot(x, y, z, w) == pytest.approx(1)


@pytest.mark.timing
async def test_the_jaw_follows_the_voice_and_rests_after_an_interruption() -> None:
    async with listening() as (ear, port), session_for(port, "livelink") as (live, session):
        began = await live.http.post(f"{session}/livelink", json={"port": port, "subject": "Ann"})
        assert began.status_code == 201
        assert began.json()["target"] == f"livelink://127.0.0.1:{port}"
        await until(lambda: len(ear.packets) > 5, 5)
        assert max(ear.jaws) == 0
        at = np.arange(10 * 48_000) / 48_000
        loud = np.where(at % 1 < 0.5, np.sin(at * 2 * np.pi * 220) * 12_000, 0).astype(np.int16)
        await live.http.post(f"{session}/say", content=wav(loud))
        await until(lambda: max(ear.jaws, default=0) > 0.5, 5)
        heard = len(ear.packets)
        await until(lambda: len(ear.packets) > heard + 30, 5)
        assert {jaw > 0.5 for jaw in ear.jaws[heard:]} == {True, False}  # it follows, on and off
        await until(lambda: ear.jaws[-1] > 0.5, 5)
        asked = time.monotonic()
        await live.http.post(f"{session}/interrupt")
        await until(lambda: len(ear.packets) > 0 and ear.jaws[-1] == 0, 2)
        rested = next(came for (came, p) in ear.packets if came > asked and p.values[JAW] == 0)
        assert rested - asked < 0.25
        await asyncio.sleep(0.7)
        assert not any(p.values[JAW] for came, p in ear.packets if came > rested)
        assert {p.subject for _, p in ear.packets} == {"Ann"}
        gone = await live.http.delete(began.headers["Location"])
        assert gone.status_code == 204
        count = len(ear.packets)
        await asyncio.sleep(0.6)  # a picture that does not change would be sent again
        assert len(ear.packets) == count


async def test_osc_carries_the_blend_shapes_and_the_head() -> None:
    seen: list[tuple[str, tuple[object, ...]]] = []
    dispatcher = Dispatcher()
    dispatcher.set_default_handler(lambda address, *values: seen.append((address, values)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    receiver = AsyncIOOSCUDPServer(("127.0.0.1", port), dispatcher, asyncio.get_running_loop())
    transport, _ = await receiver.create_serve_endpoint()
    try:
        async with session_for(port, "osc") as (live, session):
            asked = {"kind": "osc", "host": "127.0.0.1", "port": port}
            began = await live.http.post(f"{session}/livelink", json=asked)
            assert began.status_code == 201
            tone = np.sin(np.arange(48_000) * 2 * np.pi * 220 / 48_000) * 12_000
            await live.http.post(f"{session}/say", content=wav(tone.astype(np.int16)))
            await until(lambda: opened(seen) > 0.5, 5)
    finally:
        transport.close()
    first = [address for address, _ in seen].index("/VMC/Ext/Blend/Apply")
    bundle = seen[: first + 1]
    assert [values[0] for _, values in bundle[1:-1]] == [
        name[0].upper() + name[1:] for name in arkit.NAMES
    ]
    assert bundle[0] == ("/VMC/Ext/Bone/Pos", ("Head", 0, 0, 0, 0, 0, 0, 1))


def opened(seen: list[tuple[str, tuple[object, ...]]]) -> float:
    return max(
        (float(str(v[1])) for a, v in seen if a.endswith("Val") and v[0] == "JawOpen"), default=0.0
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"port": 11_112}, 403, "target_not_allowed"),
        ({"host": "localhost"}, 403, "target_not_allowed"),
        ({"kind": "osc", "port": 11_111}, 403, "target_not_allowed"),
        ({"host": "127.0.0.1/../x"}, 422, "bad_request"),
        ({"kind": "rtmp"}, 422, "bad_request"),
    ],
)
async def test_other_receivers_are_refused(body: dict[str, object], status: int, code: str) -> None:
    async with session_for(11_111, "livelink") as (live, session):
        answer = await live.http.post(f"{session}/livelink", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
