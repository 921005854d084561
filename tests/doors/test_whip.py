"""WHIP: what a publisher sends, the avatar speaks; the token that both one-way doors ask for."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.voice import wav
from client_example.headless import FileMicrophone, Viewer
from engine.errors import ConfigError
from server.settings import ServerSettings
from tests.doors import hearing
from tests.doors.one_way import SDP, Peer, heard_share, one_way_offer
from tests.server.live import serving, until

pytestmark = pytest.mark.timeout(60)
PLAIN = ServerSettings(capacity=4)
TOKEN = "a-token.of~the+tests/="
BEARER = {"Authorization": f"Bearer {TOKEN}"}


BABBLE = hearing.babble(4, 48_000)


@pytest.fixture
def babble(tmp_path: Path) -> Path:
    """It as a sound file."""
    path = tmp_path / "babble.wav"
    path.write_bytes(wav(BABBLE))
    return path


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def push(url: str, sound: Path, *, picture: bool) -> tuple[int | None, str]:
    """Push a sound, and a picture, as ffmpeg does; its exit status and what it said."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    words = ["-hide_banner", "-re", "-i", str(sound)]
    if picture:
        words += [
            "-re",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=128x128:rate=25",
            "-t",
            "4",
            "-bf",
            "0",
        ]
        words += "-c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline".split()
        words += ["-pix_fmt", "yuv420p"]
    words += ["-c:a", "libopus", "-ar", "48000", "-ac", "2", "-authorization", TOKEN]
    process = await asyncio.create_subprocess_exec(
        *(ffmpeg, *words, "-whip_flags", "dtls_active", "-f", "whip", url),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


async def test_the_avatar_speaks_what_ffmpeg_pushes(babble: Path) -> None:
    """With a picture into a session of its own, without one into a session that is there."""
    async with serving(settings=ServerSettings(capacity=4, bearer=TOKEN)) as live:
        made = await live.http.post("/api/sessions", json={"voice": "microphone"})
        there = live.service.find_session(made.json()["session_id"])
        players = [Peer(live.http), Peer(live.http)]
        pushing = [
            asyncio.ensure_future(push(f"{live.url}/whip/{there.id}", babble, picture=False)),
            asyncio.ensure_future(push(f"{live.url}/whip", babble, picture=True)),
        ]
        try:
            await until(lambda: len(live.service.sessions) == 2 or pushing[1].done(), 20)
            [own] = [session for session in live.service.sessions if session is not there]
            for player, session in zip(players, (there, own), strict=True):
                media = ("video recvonly", "audio recvonly")
                await player.open(f"/whep/{session.id}", *media, headers=BEARER)
            for status, said in await asyncio.gather(*pushing):
                assert status == 0, said
            await until(lambda: own.closed_for is not None, 5)  # ffmpeg deletes what it made
            await until(lambda: players[1].pc.connectionState == "closed", 5)
            assert there.closed_for is None
            assert there.microphone is None
        finally:
            for task in pushing:
                task.cancel()
            await asyncio.gather(*pushing, return_exceptions=True)
            for player in players:
                await player.close()
        for player in players:
            share = heard_share(BABBLE[72_000:168_000], player.sound)
            assert share > 0.5
            assert len(player.shown) > 20


def pitch_hz(sound: np.ndarray) -> float:
    """Where the spectrum of the last second is highest; 0 for silence."""
    last = np.zeros(48_000)
    last[48_000 - len(sound[-48_000:]) :] = sound[-48_000:]
    return float(np.argmax(np.abs(np.fft.rfft(last))))


async def test_who_publishes_is_heard_in_the_place_of_others_until_it_leaves(
    tmp_path: Path,
) -> None:
    hums = {}
    for hz in (800, 500, 1500):
        sound = 12_000 * np.sin(np.arange(48_000) * hz * 2 * np.pi / 48_000)
        path = tmp_path / f"{hz}.wav"
        path.write_bytes(wav(sound.astype(np.int16)))
        hums[hz] = FileMicrophone(path, loop=True)
    async with serving(settings=PLAIN) as live:
        talker, player, first, second = Viewer(live.url), *(Peer(live.http) for _ in range(3))

        async def heard(hz: int) -> None:
            await until(lambda: abs(pitch_hz(player.sound) - hz) < 10, 15)

        try:
            await talker.connect(hums[800])
            await player.open(f"/whep/{talker.session_id}", "audio recvonly")
            await heard(800)
            path = f"/whip/{talker.session_id}"
            await first.open(path, microphone=hums[500])
            await heard(500)
            await second.open(path, microphone=hums[1500])
            await heard(1500)
            await until(lambda: first.pc.connectionState == "closed", 5)
            assert second.location.startswith(f"{path}/")
            assert (await live.http.delete(second.location)).status_code == 200
            await until(lambda: second.pc.connectionState == "closed", 5)
            await heard(800)
        finally:
            for peer in (player, first, second, talker):
                await peer.close()


async def test_a_lost_publisher_takes_its_session_along_and_an_idle_offer_too(babble: Path) -> None:
    async with serving(settings=ServerSettings(capacity=4, connect_timeout_s=0.5)) as live:
        publisher = Peer(live.http)
        await publisher.open(
            "/whip?prompt=smile&voice=microphone", microphone=FileMicrophone(babble)
        )
        [session] = live.service.sessions
        assert f"</whep/{session.id}>" in publisher.response.headers["Link"]
        await asyncio.sleep(0.8)  # nobody watches yet
        assert session.closed_for is None
        assert session.line.voice == "microphone"
        await publisher.close()
        await until(lambda: len(live.service.sessions) == 0, 5)
        posted = await live.http.post(
            "/whip", content=await one_way_offer("audio sendonly"), headers=SDP
        )
        assert posted.status_code == 201
        await until(lambda: len(live.service.sessions) == 0, 5)


async def test_sound_is_taken_and_video_is_answered_as_inactive() -> None:
    async with serving(settings=PLAIN) as live:
        for media in (
            ("audio sendonly",),
            ("audio sendonly", "video sendonly"),
            ("video sendonly", "audio sendrecv"),
        ):
            offer = await one_way_offer(*media)
            answer = await live.http.post("/whip", content=offer, headers=SDP)
            assert answer.status_code == 201
            kinds = re.findall(r"^m=(\w+)", answer.text, re.MULTILINE)
            directions = re.findall(
                r"^a=(recvonly|inactive|sendonly|sendrecv)", answer.text, re.MULTILINE
            )
            assert kinds == [each.split()[0] for each in media]
            wanted = {"audio": "recvonly", "video": "inactive"}
            assert directions == [wanted[kind] for kind in kinds]
            assert "opus/48000" in answer.text
            assert (await live.http.delete(answer.headers["Location"])).status_code == 200
        assert len(live.service.sessions) == 0
        for wrong in (
            ("audio recvonly",),
            ("video sendonly",),
            ("audio sendonly", "video recvonly"),
        ):
            refused = await live.http.post(
                "/whip", content=await one_way_offer(*wrong), headers=SDP
            )
            assert code_of(refused) == (422, "bad_sdp")
        offer = await one_way_offer("audio sendonly")
        for path, status in (
            ("/whip?voice=x", 422),
            ("/whip?portrait_id=x", 404),
            ("/whip/x", 404),
        ):
            assert (await live.http.post(path, content=offer, headers=SDP)).status_code == status
        assert (await live.http.put("/whip")).status_code == 405
        assert (await live.http.options("/whip")).headers["Accept-Post"] == SDP["Content-Type"]
        assert len(live.service.sessions) == 0


async def test_without_the_token_nobody_publishes_or_watches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(settings=ServerSettings(capacity=4, bearer=TOKEN)) as live:
        made = await live.http.post("/api/sessions", json={})  # its own doors ask for none
        session = made.json()["session_id"]
        offer = await one_way_offer("audio sendonly")
        for path in ("/whip", f"/whip/{session}", f"/whep/{session}", "/whep/x/y"):
            for given, error in (
                (None, False),
                ("Basic eDp5", False),
                ("Bearer", True),
                (f"Bearer {TOKEN}x", True),
                (f"Bearer {TOKEN[:-1]}", True),
                ("Bearer \xe9", True),
            ):
                headers = httpx.Headers(SDP)
                if given is not None:
                    headers["Authorization"] = given
                refused = await live.http.post(path, content=offer, headers=headers)
                assert code_of(refused) == (401, "unauthorized"), (path, given)
                asked = refused.headers["WWW-Authenticate"]
                assert asked.startswith("Bearer realm=")
                assert ("invalid_token" in asked) == error
        assert (await live.http.options("/whip")).status_code == 200
        for scheme in ("Bearer", "bearer"):
            headers = SDP | {"Authorization": f"{scheme} {TOKEN}"}
            published = await live.http.post("/whip", content=offer, headers=headers)
            assert published.status_code == 201
            assert (await live.http.delete(published.headers["Location"])).status_code == 401
            gone = await live.http.delete(published.headers["Location"], headers=headers)
            assert gone.status_code == 200
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(live.service.settings)


def test_a_token_that_no_header_can_hold_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="bearer") as refused:
        ServerSettings.merge({"PORTRAITTALK__BEARER": "two words"}, {})
    assert "two words" not in str(refused.value)
    assert ServerSettings.merge({"PORTRAITTALK__BEARER": TOKEN}, {}).bearer == TOKEN
