"""The viewer without a browser."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.voice import wav
from client_example.headless import FileMicrophone, read_sound, view
from tests.server.live import serving

pytestmark = pytest.mark.timeout(60)


def write_tone(path: Path, seconds: float) -> Path:
    pcm = (np.sin(np.arange(round(22_050 * seconds)) * 0.1) * 9000).astype("<i2")
    path.write_bytes(wav(pcm, 22_050))
    return path


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "speech.wav", seconds=1.0)


async def test_it_speaks_sees_and_records(speech: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    async with serving() as live:
        report = await view(live.url, audio=speech, seconds=3.5, record=film)
    assert report.connected_s is not None
    assert report.first_frame_s is not None
    assert report.frames > 20
    assert report.sound_packets > 40
    assert any("mic" in stats["legs_ms"] for stats in report.server_stats)
    with av.open(str(film)) as recorded:
        frames = sum(1 for _ in recorded.decode(video=0))
    assert frames in (report.frames, report.frames + 1)  # one may come while it hangs up
    sound = read_sound(film)
    assert np.abs(sound.astype(int)).max() > 4000


async def test_a_server_that_refuses_is_quoted() -> None:
    async with serving() as live:
        with pytest.raises(RuntimeError, match="unknown_portrait"):
            await view(live.url, seconds=1, portrait="nobody")


async def test_its_command_ends_with_one_json_line(speech: Path) -> None:
    async with serving() as live:
        command = [sys.executable, "-m", "client_example.headless", live.url]
        process = await asyncio.create_subprocess_exec(
            *command, "--audio", str(speech), "--seconds", "3", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    assert process.returncode == 0
    report = json.loads(out.decode().strip().splitlines()[-1])
    assert report["frames"] > 20


async def test_a_sound_file_is_spoken_in_real_time_and_then_there_is_silence(
    tmp_path: Path,
) -> None:
    short = write_tone(tmp_path / "short.wav", seconds=0.1)
    microphone, began = FileMicrophone(short), time.monotonic()
    frames = [await microphone.recv() for _ in range(10)]
    assert time.monotonic() - began >= 9 * 0.02 - 0.002
    assert [frame.pts for frame in frames] == [960 * i for i in range(10)]
    heard = [bool(frame.to_ndarray().any()) for frame in frames]
    assert heard == [True] * 5 + [False] * 5


async def test_a_sound_file_can_be_spoken_again_and_again(tmp_path: Path) -> None:
    microphone = FileMicrophone(write_tone(tmp_path / "short.wav", seconds=0.1), loop=True)
    frames = [await microphone.recv() for _ in range(10)]
    assert all(frame.to_ndarray().any() for frame in frames)
