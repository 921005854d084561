"""WHIP: what a publisher sends, the avatar speaks; the token that both one-way doors ask for."""

from __future__ import annotations

import asyncio
import logging
import re
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest

from client_example.headless import FileMicrophone
from engine.errors import ConfigError
from server.settings import ServerSettings
from tests.doors.one_way import SDP, Peer, heard_share, one_way_offer
from tests.server.live import serving, until

pytestmark = pytest.mark.timeout(60)
PLAIN = ServerSettings(capacity=4)
TOKEN = "a-token.of~the+tests/="
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def write_wave(path: Path, sound: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        out.writeframes((sound / np.abs(sound).max() * 12_000).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def babble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of noise in the voice's band: no stretch of it is like another."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(4 * 48_000))
    hz = np.fft.rfftfreq(4 * 48_000, 1 / 48_000)
    noise = np.fft.irfft(np.where((hz > 200) & (hz < 3000), spectrum, 0))
    return write_wave(tmp_path_factory.mktemp("sound") / "babble.wav", noise)


def samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def push(url: str, sound: Path, *more: str) -> tuple[int, str]:
    """Push a sound and a picture as ffmpeg does; its exit status and what it said."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    picture = ("-re", "-f", "lavfi", "-i", "testsrc2=size=128x128:rate=25")
    coded = "-c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline -pix_fmt yuv420p"
    spoken = "-bf 0 -c:a libopus -ar 48000 -ac 2 -b:a 64k -shortest -whip_flags dtls_active"
    process = await asyncio.create_subprocess_exec(
        *(ffmpeg, "-hide_banner", *picture, "-re", "-i", sound, *coded.split(), *spoken.split()),
        *(*more, "-f", "whip", url),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_avatar_speaks_what_ffmpeg_pushes(babble: Path) -> None:
    """Into a session of its own: nobody but the publisher knows of it until it is told."""
    settings = ServerSettings(capacity=4, bearer=TOKEN)
    async with serving(settings=settings) as live:
        pushing = asyncio.ensure_future(push(f"{live.url}/whip", babble, "-authorization", TOKEN))
        player = Peer(live.http)
        try:
            await until(lambda: len(live.service.sessions) == 1 or pushing.done(), 20)
            [session] = live.service.sessions
            await until(lambda: session.microphone is not None, 10)
            await player.open(
                f"/whep/{session.id}", "video recvonly", "audio recvonly", headers=BEARER
            )
            status, said = await pushing
            assert status == 0, said
            await until(lambda: session.closed_for is not None, 5)  # it deletes what it made
            assert session.closed_for == "door_closed"
            await until(lambda: player.pc.connectionState == "closed", 5)
        finally:
            pushing.cancel()
            await player.close()
        assert heard_share(samples(babble)[72_000:168_000], player.sound) > 0.3  # chance gives none
        assert len(player.shown) > 20
        assert not live.service.resources.publishers(session.id)


def pitch_hz(sound: np.ndarray) -> float:
    """Where the spectrum of the last second is highest; 0 for silence."""
    last = np.zeros(48_000)
    last[48_000 - len(sound[-48_000:]) :] = sound[-48_000:]
    return float(np.argmax(np.abs(np.fft.rfft(last))))


async def test_a_session_that_is_there_gets_a_microphone_and_outlives_it(tmp_path: Path) -> None:
    hums = (500, 1500)
    files = [
        write_wave(tmp_path / f"{hz}.wav", np.sin(np.arange(48_000) * hz * 2 * np.pi / 48_000))
        for hz in hums
    ]
    async with serving(settings=PLAIN) as live:
        made = await live.http.post("/api/sessions", json={"voice": "both"})
        session = live.service.find_session(made.json()["session_id"])
        player, first, second = (Peer(live.http) for _ in range(3))
        try:
            await player.open(f"/whep/{session.id}", "audio recvonly")
            path = f"/whip/{session.id}"
            for hz, publisher, file in zip(hums, (first, second), files, strict=True):
                await publisher.open(path, microphone=FileMicrophone(file, loop=True))
                assert publisher.location.startswith(f"{path}/")
                await until(lambda hz=hz: abs(pitch_hz(player.sound) - hz) < 10, 15)
            assert first.pc.connectionState == "closed"  # one is heard
            assert (await live.http.delete(second.location)).status_code == 200
            await until(lambda: second.pc.connectionState == "closed", 5)
            assert session.microphone is None
            before = player.report.sound_packets
            await until(lambda: player.report.sound_packets > before + 20, 5)
            assert session.closed_for is None
        finally:
            for peer in (player, first, second):
                await peer.close()


async def test_a_lost_publisher_takes_its_session_along_and_an_idle_offer_too(babble: Path) -> None:
    async with serving(settings=ServerSettings(capacity=4, connect_timeout_s=1)) as live:
        publisher = Peer(live.http)
        await publisher.open(
            "/whip?prompt=smile&voice=microphone", microphone=FileMicrophone(babble)
        )
        [session] = live.service.sessions
        assert f"</whep/{session.id}>" in publisher.response.headers["Link"]
        await asyncio.sleep(1.5)  # nobody watches yet
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
            ("audio sendonly", "audio sendonly"),
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
        for path in ("/whip", f"/whip/{session}", f"/whep/{session}", "/whep/x/y", "/whep"):
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
        ServerSettings.merge({"AVATAR_BEARER": "two words"}, {})
    assert "two words" not in str(refused.value)
    assert ServerSettings.merge({"AVATAR_BEARER": TOKEN}, {}).bearer == TOKEN
