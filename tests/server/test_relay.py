"""The bad network that other tests rely on, and a microphone that is heard through it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.voice import wav
from client_example import headless
from client_example.headless import FileMicrophone, Viewer
from engine.types import Pcm
from server.sound.sound_format import SoundFormat
from tests.server.fake_engine import FakeEngine, FakeState
from tests.server.live import Live, serving, until
from tests.server.microphone_way import tone, voice
from tests.server.relay import Line, Relay, is_media, relaying, uniform, without_candidates

RTP = bytes([0x80, 111]) + bytes(20)
STUN = bytes([0, 1]) + bytes(20)


async def carried(line: Line, count: int = 200) -> list[int]:
    """The numbers of the datagrams that come out of a line, in order."""
    out: list[int] = []
    for n in range(count):
        line.carry(RTP + bytes([n]), lambda data: out.append(data[-1]))
    await asyncio.sleep(0.15)
    return out


async def test_a_line_loses_and_reorders_the_same_for_the_same_seed() -> None:
    lines = [Line(loss=0.2, delay=uniform(0.1), seed=seed) for seed in (1, 1, 2)]
    one, again, other = [await carried(line) for line in lines]
    assert sorted(one) == sorted(again) != sorted(other)
    assert one != sorted(one)
    assert lines[0].lost == 200 - len(one) == 200 - lines[0].passed
    assert 20 <= lines[0].lost <= 60


async def test_a_line_can_keep_the_order_and_leaves_alone_what_is_no_media() -> None:
    out = await carried(Line(delay=uniform(0.1), in_order=True))
    assert out == list(range(200))
    assert is_media(RTP)
    assert not is_media(STUN)
    assert not is_media(bytes([0x80, 200]) + bytes(20))
    heard: list[bytes] = []
    Line(loss=1.0).carry(STUN, heard.append)
    assert heard == [STUN]


class Ear(FakeEngine):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__(side=64)
        self.heard: list[Pcm] = []

    def step(self, state: FakeState, pcm: Pcm) -> list[Any]:
        self.heard.append(pcm)
        return super().step(state, pcm)


@asynccontextmanager
async def speaking(
    live: Live, relay: Relay, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Viewer]:
    """A viewer that plays a sound file into the server, through the relay."""
    post = headless.post_json

    def through(url: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        answer = post(url, body | {"sdp": without_candidates(body["sdp"])})
        return answer | {"sdp": relay.through(answer["sdp"])}

    monkeypatch.setattr(headless, "post_json", through)
    viewer = Viewer(live.url)
    try:
        await viewer.connect(FileMicrophone(sound, loop=True))
        await until(lambda: viewer.report.first_frame_s is not None, 15)
        yield viewer
    finally:
        await viewer.close()


def places(heard: Pcm, sent: Pcm) -> list[tuple[int, float]]:
    """For each loud 0.2 s of what was heard: where in `sent` it is, less where it was heard; how alike."""
    found = []
    norms = np.sqrt(np.convolve(sent**2, np.ones(3200), "valid"))
    spectrum = np.fft.rfft(sent, 1 << 20)
    for begin in range(0, len(heard) - 3200, 3200):
        piece = heard[begin : begin + 3200]
        if np.sqrt(np.mean(piece**2)) < 0.02:
            continue
        product = spectrum * np.conj(np.fft.rfft(piece, 1 << 20))
        alike = np.fft.irfft(product)[: len(norms)] / (norms * np.linalg.norm(piece) + 1e-6)
        best = int(np.argmax(alike))
        found.append((best - begin, float(alike[best])))
    return found


class Stalls:
    """Adds up how long this process was not let run: other work shares the machine."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            late = time.monotonic() - before - 0.005
            self.seconds += late if late > 0.010 else 0.0


def counter(text: str, name: str) -> float:
    [row] = [row for row in text.splitlines() if row.startswith(f"{name} ")]
    return float(row.split()[1])


@pytest.mark.timeout(120)
async def test_a_microphone_is_heard_whole_through_60_ms_of_jitter_and_its_losses_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, file = voice(40), tmp_path / "voice.wav"
    file.write_bytes(wav(sound))
    ear, stalls = Ear(), Stalls()
    line = Line(delay=uniform(0.120))
    watching = asyncio.create_task(stalls.watch())
    async with (
        serving(ear) as live,
        relaying(up=line) as relay,
        speaking(live, relay, file, monkeypatch),
    ):
        [session] = live.service.sessions
        intake = session.line.intake
        assert intake is not None
        await until(lambda: line.passed > 100, 20)
        began, fed, stalls.seconds = time.monotonic(), intake.fed, 0.0
        before = intake.discarded + intake.concealed
        ear.heard.clear()
        await asyncio.sleep(10)
        took, gone = time.monotonic() - began, intake.fed - fed
        damaged = intake.discarded + intake.concealed - before
        stalled, heard = stalls.seconds, np.concatenate(ear.heard)
        assert abs(gone / 48_000 - took) < 0.1 + stalled
        assert damaged / 48_000 <= 0.02 * took + 2 * stalled
        assert intake.target_delay_s >= 0.08

        line.delay, line.loss, lost = uniform(0.030), 0.03, intake.lost
        await until(lambda: line.lost >= 8, 30)
        await asyncio.sleep(2)
        assert 0.5 * line.lost <= intake.lost - lost <= line.lost + 2
        text = (await live.http.get("/metrics")).text
        assert counter(text, "portraittalk_microphone_lost_total") >= 0.5 * line.lost
        assert counter(text, "portraittalk_microphone_delay_seconds_sum") > 0.08
    watching.cancel()

    found = places(heard, (sound.astype(np.float32) / 32_768).reshape(-1, 3).mean(axis=1))
    assert len(found) >= 10
    alike = [place for place, likeness in found if likeness > 0.8]
    assert len(alike) >= 0.9 * len(found) - stalled / 0.1
    assert np.ptp(alike) / 16_000 <= 0.080 + stalled  # nothing of it moved by more


async def test_what_a_viewer_loses_and_what_waits_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, file = Line(loss=0.2), tmp_path / "voice.wav"
    file.write_bytes(wav(tone(5)))
    async with (
        serving() as live,
        relaying(down=line) as relay,
        speaking(live, relay, file, monkeypatch),
    ):
        session = await live.http.post("/api/sessions", json={})
        waits = live.service.find_session(session.json()["session_id"])
        waits.speech.begin(None, SoundFormat(16_000)).push(bytes(2 * 16_000))
        lost = live.service.metrics.viewer_lost._value.get
        await until(lambda: lost() > 5, 20)
        text = (await live.http.get("/metrics")).text
        assert 5 < counter(text, "portraittalk_viewer_packets_lost_total") <= line.lost
        speech = counter(text, 'portraittalk_waiting{queue="speech_seconds"}')
        assert speech == pytest.approx(1, abs=0.01)
        assert counter(text, 'portraittalk_waiting{queue="sessions_to_connect"}') == 1
        assert counter(text, 'portraittalk_waiting{queue="receivers"}') == 1
