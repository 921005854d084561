"""A session in a video call: a camera that keeps what it is sent, and sound as a device's thread asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import miniaudio
import numpy as np
import pytest
import pyvirtualcam
from numpy.typing import NDArray
from pyvirtualcam.camera import BACKENDS

from engine.errors import ConfigError
from server.doors.camera import (
    CallDevices,
    CameraSender,
    Microphone,
    SoundBuffer,
    check_devices,
    in_call,
)
from server.live.surroundings import SessionOptions
from server.settings import ServerSettings
from tests.server.live import PORTRAIT, serving, until

NULL = (miniaudio.Backend.NULL,)  # whatever sound devices this machine has, none is touched


class Memory:
    """A camera in memory, by the library's own extension point."""

    frames: list[NDArray[np.uint8]] = []
    opened = 0
    closed = 0

    def __init__(
        self, *, width: int, height: int, fps: float, fourcc: int, device: str | None, **kw: Any
    ) -> None:
        if device == "broken":
            raise RuntimeError("the device is busy")
        self._shape = (height, width, 3)
        Memory.opened += 1

    def send(self, frame: NDArray[np.uint8]) -> None:
        Memory.frames.append(frame.reshape(self._shape).copy())

    def close(self) -> None:
        Memory.closed += 1

    def device(self) -> str:
        return "memory"

    def native_fourcc(self) -> None:
        return None


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    pyvirtualcam.register_backend("memory", Memory)
    Memory.frames, Memory.opened, Memory.closed = [], 0, 0
    yield
    del BACKENDS["memory"]


def opening(frame: NDArray[np.uint8]) -> bool:
    """Whether the fake engine's mouth is open."""
    return bool(frame[95:98, 60:66].mean() < 100)


@pytest.mark.timing
async def test_what_the_microphone_hears_is_said_on_the_camera() -> None:
    async with serving() as live:
        session = await live.service.open_session(SessionOptions())
        sound = SoundBuffer()
        live.service.senders.start(CameraSender(session, "memory:", sound))
        player, recorder = sound.player(), Microphone(session).recorder()
        await until(lambda: len(Memory.frames) > 3, 5)
        np.testing.assert_allclose(Memory.frames[-1][4, 4], PORTRAIT[0, 0], atol=6)
        assert not opening(Memory.frames[-1])
        tone = (np.sin(np.arange(480) * 2 * np.pi / 48) * 12_000).astype(np.int16)
        played, before = [], len(Memory.frames)
        for _ in range(150):  # as two sound devices do: 10 ms each time
            await asyncio.to_thread(recorder.send, tone.tobytes())
            played.append(np.frombuffer(await asyncio.to_thread(player.send, 480), np.int16))
            await asyncio.sleep(0.008)
        assert any(opening(frame) for frame in Memory.frames[before:])
        loud = [np.abs(pcm).max() > 6000 for pcm in played]
        assert sum(loud) > 50
        assert not loud[0]
        await session.close()
        assert Memory.closed == Memory.opened == 1


async def test_a_call_is_a_session_that_every_door_can_speak_to() -> None:
    devices = CallDevices(camera="memory:", microphone="default", loopback="default", backends=NULL)
    check_devices(devices)
    async with serving() as live:
        async with in_call(live.service, devices) as session:
            await until(lambda: len(Memory.frames) > 3, 5)
            told = (await live.http.get(f"/api/sessions/{session.id}")).json()
            assert told["viewers"] == 1
            await until(lambda: session.line.intake is not None, 5)
            assert isinstance(session.microphone, Microphone)
        assert not len(live.service.sessions)
    assert Memory.opened == Memory.closed == 2


async def test_a_server_started_for_a_call_is_in_it() -> None:
    async with serving(settings=ServerSettings(port=0, camera="memory:")) as live:
        await until(lambda: len(Memory.frames) > 3, 5)
        (session,) = live.service.sessions
        assert session.line.voice == "assistant"
    assert Memory.closed == 1


def test_less_sound_than_is_asked_for_is_silence_and_more_is_dropped() -> None:
    sound = SoundBuffer()
    sound.put(np.full(1000, 7, np.int16))
    assert not sound.take(480).any()  # too little to begin
    sound.put(np.full(1000, 7, np.int16))
    assert sound.take(1500).all()
    assert list(sound.take(700)) == [7] * 500 + [0] * 200
    sound.put(np.arange(1, 20_001).astype(np.int16))
    assert sound.take(1)[0] == 20_000 - 9600 + 1


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (CallDevices(camera="memory:broken"), "no virtual camera: .*the device is busy"),
        (
            CallDevices(camera="memory:", loopback="Nowhere", backends=NULL),
            "loopback: no sound device is called 'Nowhere'; there are: 'NULL Playback Device'",
        ),
        (
            CallDevices(camera="memory:", microphone="Nowhere", backends=NULL),
            "microphone: no sound device is called 'Nowhere'; there are: 'NULL Capture Device'",
        ),
    ],
)
def test_what_is_not_there_is_said_in_one_line(devices: CallDevices, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_devices(devices)
    assert "\n" not in str(caught.value)


def test_a_microphone_without_a_camera_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a camera too"):
        ServerSettings(microphone="default")
