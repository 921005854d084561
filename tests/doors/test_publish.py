"""Sessions sent out: files that play, RTMP and SRT as ffmpeg receives them, and what is refused."""

from __future__ import annotations

import asyncio
import io
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks.server_process import free_port
from benchmarks.voice import wav
from engine.errors import ConfigError
from engine.offline.mark import MARK
from server.sending.carriers import ffmpeg
from server.sending.muxing import Muxer
from server.settings import ServerSettings
from server.targets import TargetRefused, Targets
from tests.doors.recordings import beeps, heard, seen
from tests.server.live import PORTRAIT, Live, serving, until


@asynccontextmanager
async def session_to(*allowed: str) -> AsyncIterator[tuple[Live, str]]:
    settings = ServerSettings(port=0, publish_to=allowed)
    async with serving(settings=settings) as live:
        made = await live.http.post("/api/sessions", json={})
        yield live, f"/api/sessions/{made.json()['session_id']}"


def told(live: Live) -> list[tuple[str, str]]:
    """State and message of each sender's events from now on."""
    states: list[tuple[str, str]] = []
    (session,) = live.service.sessions
    session.events.subscribe(
        lambda e: (
            states.append((e.data["state"], e.data["message"])) if e.type == "sender" else None
        )
    )
    return states


def in_step(path: Path, count: int) -> float:
    """How much later beeps are heard than the mouth opens, in s."""
    sounds, (times, mouths) = heard(path), seen(path)
    assert len(sounds) == len(mouths) == count
    assert 0 <= times[0] < 0.05
    return float(np.median(sounds - mouths))


async def test_files_are_whole_after_a_kill_an_end_and_a_stop_of_the_server(tmp_path: Path) -> None:
    """What the system has of a file that is being written is what a SIGKILL leaves."""
    ended, stopped = tmp_path / "ended.mp4", tmp_path / "stopped.mkv"
    cut = [tmp_path / f"cut{path.suffix}" for path in (ended, stopped)]
    async with session_to(str(tmp_path)) as (live, session):
        states = told(live)
        began = {}
        for path in (ended, stopped):
            answer = await live.http.post(f"{session}/publish", json={"url": path.as_uri()})
            assert answer.status_code == 201, answer.text
            assert str(tmp_path) not in answer.text
            began[path] = answer.headers["Location"]
        again = await live.http.post(f"{session}/publish", json={"url": ended.as_uri()})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "target_exists")
        await live.http.post(f"{session}/say", content=wav(beeps(2)))
        await asyncio.sleep(3.3)
        for source, copy in zip((ended, stopped), cut, strict=True):
            await asyncio.to_thread(shutil.copy, source, copy)
        assert (await live.http.delete(began[ended])).status_code == 204
        assert [state for state, _ in states] == ["started", "started", "ended"]
        whole = seen(ended)[0]  # as soon as it answers
    assert whole[-1] > 2.8
    for path in cut:
        assert seen(path)[0][-1] > 1, path
    for path in (ended, stopped):
        assert abs(in_step(path, 2)) <= 0.04
        check_description(path)


def check_description(path: Path) -> None:
    """It says that it is made up, and how its colours are to be read, which is true."""
    with av.open(str(path)) as source:
        comments = {value for key, value in source.metadata.items() if key.lower() == "comment"}
        frame = next(source.decode(video=0))
        video = source.streams.video[0].codec_context
    assert comments == {MARK}
    codes = (video.color_primaries, video.color_trc, video.colorspace, video.color_range)
    assert codes == (1, 1, 1, 1)
    luma = frame.to_ndarray()[frame.height // 8, frame.width // 8]
    red, green, blue = PORTRAIT[0, 0] / 255
    assert abs(luma - (16 + 219 * (0.2126 * red + 0.7152 * green + 0.0722 * blue))) < 3


async def test_rtmp_arrives_in_step(tmp_path: Path) -> None:
    port, got = free_port(), tmp_path / "got.mkv"
    receiver = listen(f"rtmp://127.0.0.1:{port}/live/key", got, "-listen", "1")
    try:
        async with session_to(f"rtmp://127.0.0.1:{port}/live") as (live, session):
            states = told(live)
            began = await live.http.post(
                f"{session}/publish", json={"url": f"rtmp://127.0.0.1:{port}/live/key"}
            )
            assert began.json()["target"] == f"rtmp://127.0.0.1:{port}"
            await live.http.post(f"{session}/say", content=wav(beeps(2)))
            await asyncio.sleep(3.3)
            assert (await live.http.delete(f"{session}/publish")).status_code == 204
            assert states == [("started", ""), ("ended", "")]
        receiver.wait(10)
    finally:
        receiver.kill()
        receiver.wait()
    assert abs(in_step(got, 2)) <= 0.04


async def test_srt_arrives(tmp_path: Path) -> None:
    if not speaks_srt():
        pytest.skip("this ffmpeg speaks no SRT")
    port, got = free_port(), tmp_path / "got.mkv"
    receiver = listen(f"srt://127.0.0.1:{port}?mode=listener", got)
    try:
        async with session_to(f"srt://127.0.0.1:{port}") as (live, session):
            states = told(live)
            url = f"srt://127.0.0.1:{port}?latency=200000"
            assert (await live.http.post(f"{session}/publish", json={"url": url})).is_success
            await asyncio.sleep(4)
            assert (await live.http.delete(f"{session}/publish")).status_code == 204
            assert states == [("started", ""), ("ended", "")]
        receiver.wait(10)
    finally:
        receiver.kill()
        receiver.wait()
    times, _ = seen(got)
    assert times[-1] - times[0] > 2


def speaks_srt() -> bool:
    protocols = subprocess.run([ffmpeg(), "-protocols"], capture_output=True, text=True).stdout
    return " srt\n" in protocols


def listen(url: str, out: Path, *options: str) -> subprocess.Popen[bytes]:
    words = [ffmpeg(), "-loglevel", "error", "-nostdin", *options, "-i", url, "-c", "copy", out]
    program = subprocess.Popen(words)
    time.sleep(0.5)  # it opens its port; trying would be taken for the sender
    return program


async def test_who_does_not_answer_stops_nobody_and_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that is not there, and one that takes the connection and then says nothing."""
    with socket.socket() as silent, socket.socket() as absent:
        for server in (silent, absent):
            server.bind(("127.0.0.1", 0))
        silent.listen()
        urls = [f"rtmp://127.0.0.1:{s.getsockname()[1]}/live/secret" for s in (absent, silent)]
        async with session_to(*urls) as (live, session):
            states = told(live)
            publish = f"{session}/publish"
            assert (await live.http.post(publish, json={"url": urls[0]})).is_success
            await until(lambda: len(states) == 2, 20)
            assert states[1] == ("failed", "Connection refused")
            monkeypatch.setattr("server.doors.publish.STALLED_S", 0.5)
            await live.http.patch(session, json={"portrait_id": await noisy_portrait(live)})
            assert (await live.http.post(publish, json={"url": urls[1]})).is_success
            worst, began = 0.0, time.monotonic()
            while len(states) < 4 and began > time.monotonic() - 20:
                asked = time.monotonic()
                assert (await live.http.get(session)).json()["viewers"] <= 1
                worst = max(worst, time.monotonic() - asked)
                await asyncio.sleep(0.02)
            assert states[3] == ("failed", "it took nothing for 0.5 s")
            assert worst < 1
        assert "secret" not in str(states)


async def noisy_portrait(live: Live) -> str:
    """One whose pictures do not fit into a pipe."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    headers = {"Content-Type": "image/png"}
    answer = await live.http.post("/api/portraits", content=file.getvalue(), headers=headers)
    return str(answer.json()["id"])


ALLOWED = ("/srv/talks", "rtmp://live.example.org/app", "srt://10.0.0.9:9000", "rtmps://a.example")


@pytest.mark.parametrize("entry", ["talks", "http://a.example", "rtmp://", "srt://a.example"])
def test_the_operator_is_told_what_cannot_be_allowed(entry: str) -> None:
    with pytest.raises(ConfigError, match="publish_to"):
        ServerSettings(publish_to=(entry,))


@pytest.mark.parametrize(
    "url",
    [
        "rtmp://live.example.org/app",
        "rtmp://LIVE.example.org:1935/app/key?token=a%20b",
        "rtmps://a.example/any/thing",
        "srt://10.0.0.9:9000?streamid=publish:a&passphrase=0123456789",
    ],
)
def test_what_is_allowed_may_be_sent_to(url: str) -> None:
    assert Targets(ALLOWED).address(url, "rtmp", "rtmps", "srt").port


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("rtmp://live.example.org/apple/key", "target_not_allowed"),
        ("rtmp://live.example.org/", "target_not_allowed"),
        ("rtmp://live.example.org:1936/app/key", "target_not_allowed"),
        ("rtmp://live.example.org.evil.example/app/key", "target_not_allowed"),
        ("rtmps://live.example.org/app/key", "target_not_allowed"),
        ("rtmp://live.example.org/app/../other", "bad_target"),
        ("rtmp://live.example.org/app/%2e%2e/other", "bad_target"),
        ("rtmp://live.example.org@evil.example/app/key", "bad_target"),
        ("rtmp://live.example.org\\@evil.example/app", "bad_target"),
        ("rtmp://live.example.org/app/key swfUrl=x", "bad_target"),
        ("rtmp://live.example.org/app/key\nx", "bad_target"),
        ("srt://10.0.0.9:9000?mode=listener", "bad_target"),
        ("srt://10.0.0.9", "bad_target"),
        ("livelink://10.0.0.9:9000", "bad_target"),
        ("http://live.example.org/app", "bad_target"),
        ("concat:rtmp://live.example.org/app", "bad_target"),
        ("rtmp://live.example.org:99999/app", "bad_target"),
    ],
)
def test_other_addresses_are_refused(url: str, code: str) -> None:
    with pytest.raises(TargetRefused) as caught:
        Targets(ALLOWED).address(url, "rtmp", "rtmps", "srt")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:{0}/out/../other/a.mp4", "target_not_allowed"),
        ("file://{0}/out/%2e%2e/other/a.mp4", "target_not_allowed"),
        ("file:{0}/out/link/a.mp4", "target_not_allowed"),
        ("file:{0}/outside/a.mp4", "target_not_allowed"),
        ("file:out/a.mp4", "bad_target"),
        ("file://evil.example{0}/out/a.mp4", "bad_target"),
        ("file:{0}/out/a.sh", "bad_target"),
        ("file:{0}/out/.mp4", "bad_target"),
        ("file:{0}/out/a%00.mp4", "bad_target"),
    ],
)
def test_files_elsewhere_are_refused(tmp_path: Path, url: str, code: str) -> None:
    for folder in ("out", "other", "outside"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "other")
    targets = Targets([f"{tmp_path}/out"])
    assert targets.file(f"file:{tmp_path}/out/a%20b.mp4") == tmp_path / "out" / "a b.mp4"
    with pytest.raises(TargetRefused) as caught:
        targets.file(url.format(tmp_path))
    assert caught.value.code == code


async def test_nothing_is_allowed_unless_the_operator_says_so(tmp_path: Path) -> None:
    async with session_to() as (live, session):
        for url in ((tmp_path / "a.mp4").as_uri(), "rtmp://127.0.0.1/live"):
            answer = await live.http.post(f"{session}/publish", json={"url": url})
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                403,
                "target_not_allowed",
            )
    assert not any(path.exists() for path in (tmp_path / "a.mp4", tmp_path / "live"))


def test_another_size_is_fitted_in(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    white = np.full((64, 64, 3), 255, np.uint8)
    with av.open(str(path), "w") as container:
        first = picture(np.zeros((64, 128, 3), np.uint8), 900)
        muxer = Muxer(container, first)
        muxer.show(first)
        muxer.show(picture(white, 4500))
        muxer.hear(480, np.zeros(960, np.int16))
        muxer.finish()
    with av.open(str(path)) as source:
        last = list(source.decode(video=0))[-1].to_ndarray(format="rgb24")
    assert last.shape == (64, 128, 3)
    assert last[:, 40:88].min() > 235
    assert max(last[:, :24].max(), last[:, 104:].max()) < 20


def picture(rgb: np.ndarray, pts: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    frame.pts = pts
    return frame
