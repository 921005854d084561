"""The ears of an assistant: the microphone as PCM16 of any rate, in real time, gaps filled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from server.live.microphone import KEPT, Listening
from server.live.outlet import Outlet
from server.live.session import Session, SessionOptions
from server.service import AvatarService
from server.settings import ServerSettings
from server.sound.intake import Pcm48
from server.sound.sound_format import SpeechRefused
from tests.server.fake_engine import FakeEngine
from tests.server.live import PORTRAIT, until

pytestmark = pytest.mark.timeout(20)
ME = "a viewer"


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    """A live session whose microphone is `ME`."""
    service = AvatarService(FakeEngine(side=64), ServerSettings(capacity=1))
    await service.start(PORTRAIT, "Test")
    session = await service.open_session(SessionOptions(voice="assistant"))
    assert session.attach(Outlet())
    session.microphone = ME
    await until(lambda: session.line.intake is not None, 5)
    yield session
    await service.stop()


def tone(packet: int) -> Pcm48:
    at = np.arange(960) + 960 * packet
    return np.asarray(9000 * np.sin(at * 2 * np.pi * 400 / 48_000), dtype=np.int16)


async def talk(session: Session, packets: int) -> None:
    for i in range(packets):
        session.hear(960 * i, tone(i), None, by=ME)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 24_000, 44_100, 48_000])
async def test_it_is_heard_at_the_rate_that_is_asked_for(session: Session, rate_hz: int) -> None:
    with Listening(session, rate_hz) as microphone:
        await talk(session, 50)
        data = b"".join([packet async for packet in first(microphone, 40)])
    pcm = np.frombuffer(data, "<i2")
    loud = pcm[np.argmax(np.abs(pcm.astype(int)) > 3000) :][: rate_hz // 2]
    spectrum = np.abs(np.fft.rfft(loud.astype(float)))
    peak_hz = float(np.argmax(spectrum)) * rate_hz / len(loud)
    assert peak_hz == pytest.approx(400, abs=3)


async def first(microphone: Listening, count: int) -> AsyncIterator[bytes]:
    async for packet in microphone:
        yield packet
        count -= 1
        if not count:
            return


async def test_without_a_microphone_there_is_silence_in_real_time(session: Session) -> None:
    session.microphone = None
    began = asyncio.get_running_loop().time()
    with Listening(session, 16_000) as microphone:
        packets = [packet async for packet in first(microphone, 20)]
    took = asyncio.get_running_loop().time() - began
    seconds = sum(map(len, packets)) / 2 / 16_000
    assert not np.frombuffer(b"".join(packets), "<i2").any()
    assert took == pytest.approx(seconds, abs=0.15)


async def test_only_who_is_the_microphone_is_heard(session: Session) -> None:
    with Listening(session, 48_000) as microphone:
        for i in range(10):
            session.hear(960 * i, tone(i), None, by="somebody else")
        packets = [packet async for packet in first(microphone, 3)]
    assert not np.frombuffer(b"".join(packets), "<i2").any()


async def test_what_the_assistant_says_is_not_heard(session: Session) -> None:
    utterance = session.speech.begin()
    utterance.push(np.full(48_000, 9000, "<i2").tobytes())
    with Listening(session, 48_000) as microphone:
        packets = [packet async for packet in first(microphone, 10)]
    assert not np.frombuffer(b"".join(packets), "<i2").any()


async def test_listening_ends_with_the_session_and_leaves_nothing(session: Session) -> None:
    with Listening(session, 16_000) as microphone:
        waiting = asyncio.ensure_future(collect(microphone))
        await asyncio.sleep(0.1)
        await session.close()
        assert len(await asyncio.wait_for(waiting, 2)) > 0
    assert session.line._taps == []
    with Listening(session, 16_000) as microphone:
        assert await asyncio.wait_for(collect(microphone), 2) == []


async def collect(microphone: Listening) -> list[bytes]:
    return [packet async for packet in microphone]


async def test_two_may_listen_and_one_that_does_not_read_is_bounded(session: Session) -> None:
    with Listening(session, 48_000) as idle, Listening(session, 8000) as other:
        for i in range(KEPT + 50):
            for take in session.line._taps:  # faster than the line of sound goes
                take(tone(i))
        assert len(idle._packets) == len(other._packets) == KEPT


@pytest.mark.parametrize("rate_hz", [0, 7999, 192_001])
async def test_a_rate_that_is_not_given_is_said_so(session: Session, rate_hz: int) -> None:
    with pytest.raises(SpeechRefused, match=str(rate_hz)):
        Listening(session, rate_hz)


@pytest.mark.parametrize(
    ("voice", "heard"), [("microphone", 2000), ("assistant", 500), ("both", 2500)]
)
async def test_the_face_says_what_the_mixing_rule_says(voice: str, heard: int) -> None:
    service = AvatarService(FakeEngine(side=64), ServerSettings(capacity=1))
    await service.start(PORTRAIT, "Test")
    outlet = Outlet()
    session = await service.open_session(SessionOptions(voice=voice))  # type: ignore[arg-type]
    assert session.attach(outlet)
    session.microphone = ME
    await until(lambda: session.line.intake is not None, 5)
    utterance = session.speech.begin()
    utterance.push(np.full(48_000 * 2, 500, "<i2").tobytes())
    for i in range(15):
        session.hear(960 * i, np.full(960, 2000, np.int16), None, by=ME)
        await asyncio.sleep(0.018)
    peaks = [int(np.abs((await outlet.sound()).pcm.astype(int)).max()) for _ in range(12)]
    await service.stop()
    assert heard in peaks
    assert max(peaks) == heard


async def test_the_sum_of_two_loud_voices_is_clipped_and_does_not_wrap() -> None:
    service = AvatarService(FakeEngine(side=64), ServerSettings(capacity=1))
    await service.start(PORTRAIT, "Test")
    outlet = Outlet()
    session = await service.open_session(SessionOptions(voice="both"))
    assert session.attach(outlet)
    session.microphone = ME
    await until(lambda: session.line.intake is not None, 5)
    utterance = session.speech.begin()
    utterance.push(np.full(48_000, 30_000, "<i2").tobytes())
    for i in range(15):
        session.hear(960 * i, np.full(960, 30_000, np.int16), None, by=ME)
        await asyncio.sleep(0.018)
    packets = np.concatenate([(await outlet.sound()).pcm for _ in range(12)])
    await service.stop()
    assert packets.max() == 32767
    assert packets.min() >= 0
