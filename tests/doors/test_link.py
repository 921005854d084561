"""An avatar in the hands of an assistant's program, drawn in the process or by a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import av
import numpy as np
import pytest

from engine.errors import AvatarError
from server.doors.media_socket import Messages
from server.live.limits import ServerFull
from server.programs.embedded import embedded
from server.programs.link import AHEAD_S, Link, LocalLink
from server.programs.pieces import Over, Piece, Pieces, Said
from server.programs.remote_link import LinkFailed, Reader, RemoteLink
from server.settings import ServerSettings
from tests.server.live import Live, serving, until

pytestmark = pytest.mark.timeout(60)
RATE_HZ = 16_000


def sound(seconds: float) -> bytes:
    at = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    return (8000 * np.sin(2 * np.pi * 200 * at)).astype("<i2").tobytes()


@asynccontextmanager
async def talking(how: str) -> AsyncIterator[tuple[Live, Link, list[Piece]]]:
    """An open link and what came of it, pictures left out."""
    async with serving(settings=ServerSettings(port=0, capacity=1)) as live:
        link: Link = RemoteLink(live.url) if how == "server" else LocalLink(live.service)
        pieces: list[Piece] = []

        async def take() -> None:
            async for piece in link:
                note(piece)

        def note(piece: Piece) -> None:
            if not isinstance(piece, av.VideoFrame):
                pieces.append(piece)

        await link.open()
        taking = asyncio.create_task(take())
        try:
            yield live, link, pieces
        finally:
            await link.close()
            await asyncio.wait_for(taking, 5)  # it ends with the link


def seconds(pieces: list[Piece], utterance: str) -> float:
    said = [p for p in pieces if isinstance(p, Said) and p.utterance == utterance]
    return sum(len(p.pcm) for p in said) / 48_000


@pytest.mark.parametrize("how", ["server", "process"])
async def test_utterances_come_in_order_each_with_its_end(how: str) -> None:
    async with talking(how) as (_, link, pieces):
        names = []
        for length in (0.31, 0.25, 0.013):
            names.append(await link.push(sound(length), RATE_HZ))
            await link.end()
        await asyncio.wait_for(link.all_said(), 10)
        overs = [p for p in pieces if isinstance(p, Over)]
        assert overs == [Over(name, interrupted=False) for name in names]
        runs = [p.utterance for p in pieces]
        assert sorted(set(runs), key=runs.index) == names
        assert runs == sorted(runs, key=names.index)  # an end comes before the next one's sound
        for name, length in zip(names, (0.31, 0.25, 0.013), strict=True):
            assert abs(seconds(pieces, name) - length) < 0.002


@pytest.mark.parametrize("how", ["server", "process"])
async def test_an_interruption_answers_with_what_was_handed_out(how: str) -> None:
    async with talking(how) as (live, link, pieces):
        assert await link.interrupt() == (None, 0.0)
        name = await link.push(sound(5), RATE_HZ)
        await link.end()
        await link.push(sound(5), RATE_HZ)
        await until(lambda: seconds(pieces, name) > 0.3, 10)
        cut, played_ms = await link.interrupt()
        assert cut == name
        assert played_ms == pytest.approx(1000 * seconds(pieces, name))
        count = len(pieces)
        await asyncio.sleep(0.3)
        assert len(pieces) == count
        assert not link.waiting_s
        [session] = live.service.sessions
        assert not session.speech.busy


@pytest.mark.parametrize("how", ["server", "process"])
async def test_who_is_interrupted_elsewhere_learns_the_end_of_both(how: str) -> None:
    async with talking(how) as (live, link, pieces):
        first = await link.push(sound(5), RATE_HZ)
        await link.end()
        second = await link.push(sound(5), RATE_HZ)
        await until(lambda: seconds(pieces, first) > 0.1, 10)
        [session] = live.service.sessions
        session.interrupt()
        await until(lambda: not link.waiting_s, 5)
        assert {p for p in pieces if isinstance(p, Over)} == {
            Over(first, interrupted=True),
            Over(second, interrupted=True),
        }
        assert link.cut_off
        assert await link.push(sound(0.1), RATE_HZ) == second  # the rest of it is dropped
        await link.end()
        third = await link.push(sound(0.1), RATE_HZ)
        await link.end()
        await asyncio.wait_for(link.all_said(), 5)
        assert abs(seconds(pieces, third) - 0.1) < 0.002


async def test_pushing_waits_while_much_is_ahead_and_an_interruption_frees_it() -> None:
    async with talking("process") as (_, link, _pieces):
        await link.push(sound(AHEAD_S + 1), RATE_HZ)
        assert AHEAD_S < link.waiting_s <= AHEAD_S + 1
        waiting = asyncio.create_task(link.push(sound(70), RATE_HZ))  # more than a session takes
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await link.interrupt()
        await asyncio.wait_for(waiting, 2)
        assert not link.waiting_s  # what waited belonged to what was cut off


async def test_a_session_that_ends_ends_the_link_and_says_why() -> None:
    async with talking("server") as (live, link, _):
        await link.push(sound(5), RATE_HZ)
        await live.http.delete(f"/api/sessions/{next(iter(live.service.sessions)).id}")
        await asyncio.wait_for(link.over.wait(), 5)
        assert link.closed_for == "client"
        await asyncio.wait_for(link.all_said(), 1)
        await link.push(sound(0.1), RATE_HZ)  # no error: the end was told


async def test_a_full_server_refuses_in_words() -> None:
    async with talking("process") as (live, _, _pieces):
        with pytest.raises(LinkFailed, match="places are taken"):
            await RemoteLink(live.url).open()
        with pytest.raises(ServerFull):
            await LocalLink(live.service).open()


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(AvatarError, match="is not like http://localhost:8080"):
        RemoteLink(url)


async def test_pictures_and_speech_survive_their_messages() -> None:
    messages, reader = Messages(), Reader()
    for side in (64, 96):  # another portrait, another size
        rgb = np.full((side, side, 3), (200, 90, 40), np.uint8)
        rgb[: side // 2] = (20, 120, 200)
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
        back = reader.read(messages.write(frame))
        assert isinstance(back, av.VideoFrame)
        assert back.format.name == "yuv420p"
        assert np.abs(back.to_ndarray(format="rgb24").astype(int) - rgb).mean() < 6
    said = Said("ü \n 1", np.arange(-400, 400, dtype=np.int16))
    again = reader.read(messages.write(said))
    assert isinstance(again, Said)
    assert again.utterance == said.utterance
    assert np.array_equal(again.pcm, said.pcm)
    assert reader.read(messages.write(Over("a", interrupted=True))) == Over("a", interrupted=True)


async def test_who_does_not_fetch_gets_the_newest_half_second() -> None:
    pieces = Pieces()
    for i in range(40):
        pieces.put(Said("a", np.full(960, i, np.int16)))
    pieces.put(Over("a", interrupted=False))
    got = [await pieces.get() for _ in range(26)]
    assert [int(p.pcm[0]) for p in got if isinstance(p, Said)] == list(range(15, 40))
    assert got[-1] == Over("a", interrupted=False)
    pieces.close()
    with pytest.raises(EOFError):
        await pieces.get()


@pytest.mark.timeout(240)
async def test_the_engine_of_the_package_is_loaded_and_draws() -> None:
    async with embedded(settings=ServerSettings(capacity=1)) as service:
        link = LocalLink(service)
        await link.open()
        assert await asyncio.wait_for(link.pieces.size(), 120) == (512, 512)
        await link.close()
