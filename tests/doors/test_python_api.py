"""The avatar as a Python object."""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.voice import wav
from engine.errors import AvatarError, ConfigError, MediaError, PortraitRefused, PromptRefused
from server import Avatar
from server.doors import python_api
from server.settings import BUNDLED_PORTRAIT
from tests.doors.hearing import Sound, at_48k, babble, place_of, wholeness
from tests.server.fake_engine import FakeEngine
from tests.server.live import PORTRAIT, until

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[2]
OTHER = np.full((96, 96, 3), (20, 90, 160), dtype=np.uint8)


def avatar(engine: FakeEngine | None = None, **wishes: Any) -> Avatar:
    return Avatar.load(PORTRAIT, engine=engine or FakeEngine(side=64), **wishes)


async def all_of(speaking: AsyncIterator[Any]) -> tuple[list[NDArray[np.uint8]], Sound]:
    frames, sounds = [], [np.zeros(0, np.int16)]
    async for frame, sound in speaking:
        assert (frame.dtype, frame.shape) == (np.uint8, (64, 64, 3))
        assert (sound.dtype, sound.shape) == (np.int16, (1920,))
        frames.append(frame)
        sounds.append(sound)
    return frames, np.concatenate(sounds)


def pieces(pcm: Sound) -> Iterator[bytes]:
    for begin in range(0, len(pcm), 777):
        yield pcm[begin : begin + 777].tobytes()


async def slow_pieces(pcm: Sound) -> AsyncIterator[Sound]:
    for begin in range(0, len(pcm), 4000):
        await asyncio.sleep(0.001)
        yield pcm[begin : begin + 4000]


SOURCES: dict[str, tuple[int, Callable[[Sound, Path], Any]]] = {
    "bytes": (24_000, lambda pcm, path: pcm.tobytes()),
    "an array": (48_000, lambda pcm, path: pcm),
    "floats at an odd rate": (11_025, lambda pcm, path: pcm.astype(np.float32) / 32_768),
    "two channels": (16_000, lambda pcm, path: np.stack([pcm, pcm], 1)),
    "an iterator": (16_000, lambda pcm, path: pieces(pcm)),
    "an asynchronous iterator": (44_100, lambda pcm, path: slow_pieces(pcm)),
    "a file": (22_050, lambda pcm, path: path),
    "a file by name": (8_000, lambda pcm, path: str(path)),
    "an open file": (32_000, lambda pcm, path: io.BytesIO(path.read_bytes())),
}


async def test_every_source_comes_out_whole_with_a_frame_for_each_40_ms(tmp_path: Path) -> None:
    async with avatar() as face:
        for name, (rate_hz, make) in SOURCES.items():
            said = babble(1.01, rate_hz)
            path = tmp_path / "said.wav"
            path.write_bytes(wav(said, rate_hz))
            frames, sound = await all_of(face.speak(make(said, path), rate_hz=rate_hz))
            assert len(frames) == 26, name
            original = at_48k(said, rate_hz)
            at, alike = place_of(original[4800:-4800], sound)
            assert abs(at - 4800) < 48, name
            assert alike > 0.99, name
        telephone = bytes([0x80]) * 8000
        frames, _ = await all_of(face.speak(telephone, rate_hz=8000, encoding="ulaw"))
        assert len(frames) == 25


def opening(frame: NDArray[np.uint8]) -> int:
    """Rows of the fake engine's mouth."""
    return int((frame == (90, 20, 30)).all(axis=2).any(axis=1).sum())


async def test_a_frame_shows_its_own_sound_in_both_ways_of_speaking() -> None:
    said = np.zeros(1920 * 17, np.int16)
    said[1920 * 10 : 1920 * 14] = 20_000  # four loud frames
    said[:1920] = 400
    async with avatar() as face:
        for paced in (False, True):
            frames, sound = await all_of(face.speak(said, rate_hz=48_000, paced=paced))
            loudness = np.abs(sound.reshape(-1, 1920)).mean(axis=1)
            mouths = np.array([opening(frame) for frame in frames])
            assert (
                abs(int(np.abs(sound.astype(int)).sum()) / np.abs(said.astype(int)).sum() - 1)
                < 0.01
            )
            wide = set(np.flatnonzero(mouths > (mouths.min() + mouths.max()) / 2))
            # the speech may begin within a frame, which then is half loud
            assert set(np.flatnonzero(loudness > 15_000)) <= wide
            assert wide <= set(np.flatnonzero(loudness > 1000))
            assert len(wide) in (4, 5)


@pytest.mark.timing
async def test_paced_speech_is_whole_and_takes_its_time_however_it_comes() -> None:
    said = babble(1.5, 24_000)
    async with avatar() as face:
        await all_of(face.speak(said[:2400], paced=True))
        began = time.monotonic()
        first = 0.0
        sounds = []
        async for _, sound in face.speak(pieces(said), paced=True):
            first = first or time.monotonic() - began
            sounds.append(sound)
        took = time.monotonic() - began
        there, off_ms = wholeness(at_48k(said, 24_000), np.concatenate(sounds))
        assert there > 0.9
        assert abs(off_ms) <= 50
        assert 38 <= len(sounds) <= 40
        assert first < 0.3
        assert 1.4 < took < 2.3
        assert face.missed == 0


async def test_as_fast_as_it_goes_is_faster_than_real_time_and_waits_for_who_fetches() -> None:
    engine = FakeEngine(side=64)
    async with avatar(engine) as face:
        began = time.monotonic()
        frames, _ = await all_of(face.speak(babble(10, 16_000), rate_hz=16_000))
        assert len(frames) == 250
        assert time.monotonic() - began < 8
        steps = len(engine.batches)
        speaking = face.speak(babble(30, 16_000), rate_hz=16_000)
        await anext(speaking)
        await asyncio.sleep(0.5)
        assert len(engine.batches) - steps < 20  # of 150: it does not run ahead
        await speaking.aclose()


@pytest.mark.timing
@pytest.mark.parametrize("paced", [False, True])
async def test_an_interruption_ends_the_turn_at_once_and_says_how_far_it_came(paced: bool) -> None:
    old, new = babble(10, 48_000, seed=1), babble(0.3, 48_000, seed=2)
    async with avatar() as face:
        assert face.interrupt() == 0.0
        heard, asked, position = [], 0.0, 0.0

        async def cut_in() -> None:
            nonlocal asked, position
            await until(lambda: len(heard) > 10, 5)
            asked = time.monotonic()
            position = face.interrupt()

        task = asyncio.ensure_future(cut_in())
        async for _, sound in face.speak(old, rate_hz=48_000, paced=paced):
            heard.append(sound)
            await asyncio.sleep(0 if paced else 0.01)
        assert time.monotonic() - asked < 0.15
        await task
        at, alike = place_of(old[:9600], np.concatenate(heard))
        assert alike > 0.95
        assert abs(position - (len(heard) * 40 - at / 48)) <= 40
        _, sound = await all_of(face.speak(new, rate_hz=48_000, paced=paced))
        assert place_of(new, sound)[1] > 0.9
        async for _ in face.speak(old, rate_hz=48_000, paced=paced):
            break  # the next one cuts it off
        _, sound = await all_of(face.speak(new, rate_hz=48_000, paced=paced))
        assert place_of(new, sound)[1] > 0.9
        assert place_of(new, sound)[0] < 1921


async def test_a_source_that_stalls_is_interrupted_too() -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield babble(0.5, 24_000).tobytes()
        await asyncio.sleep(60)

    async with avatar() as face:
        for paced in (False, True):
            asyncio.get_running_loop().call_later(0.7, face.interrupt)
            async with asyncio.timeout(3):
                frames, _ = await all_of(face.speak(stalls(), paced=paced))
            assert 8 <= len(frames) <= (25 if paced else 13)  # a live face waits in silence


def shows(frame: np.ndarray, colour: np.ndarray) -> bool:
    """Whether a corner without the mouth has that colour; the invisible mark cancels itself out there."""
    return bool(np.abs(frame[:8].mean((0, 1)) - colour).max() < 3)


async def test_words_and_face_change_in_the_middle() -> None:
    async with avatar(prompt="smile") as face:
        for paced in (False, True):
            seen = False
            speaking = face.speak(babble(0.7, 24_000), paced=paced)
            first, _ = await anext(speaking)
            await face.show(OTHER)
            async for frame, _ in speaking:
                seen |= shows(frame, OTHER[0, 0])
            assert seen
            assert shows(first, PORTRAIT[0, 0])
            await face.show(PORTRAIT)
        assert await face.express("Slightly angry") == "angry 0.4"
        with pytest.raises(PromptRefused):
            await face.express("older")
        with pytest.raises(MediaError):
            await face.show("nowhere.jpg")


async def test_what_cannot_be_is_said_so() -> None:
    async with avatar() as face:
        for source in ("nowhere.wav", np.zeros((3, 3, 3), np.int16), np.zeros(9, np.int64)):
            with pytest.raises(MediaError):
                await all_of(face.speak(source))
        with pytest.raises(AvatarError):
            await all_of(face.speak(b"", rate_hz=4000))

        def breaks() -> Iterator[bytes]:
            yield babble(0.2, 24_000).tobytes()
            raise RuntimeError("the voice broke")

        for paced in (False, True):
            with pytest.raises(RuntimeError, match="the voice broke"):
                await all_of(face.speak(breaks(), paced=paced))
        assert await all_of(face.speak(b"")) is not None
    with pytest.raises(ConfigError):
        await all_of(face.speak(b""))
    for portrait, refusal in ((np.zeros((9, 9), np.uint8), MediaError), (b"x", AvatarError)):
        with pytest.raises(refusal):
            await Avatar.load(portrait, engine=FakeEngine()).__aenter__()
    with pytest.raises(PortraitRefused):
        await Avatar.load(np.zeros((99, 99, 3), np.uint8), engine=FakeEngine()).__aenter__()
    with pytest.raises(PromptRefused):
        await avatar(prompt="older").__aenter__()


async def test_an_engine_that_fails_ends_the_turn_with_its_error() -> None:
    for paced in (False, True):
        async with avatar(FakeEngine(side=64, fail_at=5)) as face:
            with pytest.raises((AvatarError, RuntimeError), match="fail"):
                await all_of(face.speak(babble(1, 24_000), paced=paced))


def test_the_readmes_example_draws_a_frame_for_each_40_ms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text()
    [code] = [
        c for c in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "Avatar.load" in c
    ]
    with Image.open(BUNDLED_PORTRAIT) as portrait:
        portrait.convert("RGB").save(tmp_path / "me.jpg")
    (tmp_path / "hello.wav").write_bytes(wav(babble(0.5, 24_000), 24_000))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(python_api, "load_profile", lambda config: FakeEngine(side=64))
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == [f"{i:05}.png" for i in range(13)]
