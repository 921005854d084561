"""Whole sessions over the loopback: a viewer, the network, the server, the engine."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import threading
import weakref

import numpy as np
import psutil
import pytest
from PIL import Image

from client_example.headless import Viewer
from engine.errors import PromptRefused
from engine.motion.expression import Prompt
from server.errors import ApiError
from server.live import frame_code
from server.live.limits import ServerFull
from server.live.outlet import Outlet
from server.live.session import Session
from server.live.surroundings import SessionOptions
from server.service import AvatarService
from server.settings import ServerSettings
from server.sound.sound_format import SoundFormat
from server.webrtc.signaling import BadSdp
from tests.server.fake_engine import FakeEngine
from tests.server.live import (
    PORTRAIT,
    Beeper,
    Live,
    fall_silent,
    offer_sdp,
    serving,
    tamper,
    until,
    watching,
)
from tests.server.pictures import encoded

pytestmark = pytest.mark.timeout(90)


def kinds(viewer: Viewer) -> list[str]:
    """The types of what it was told."""
    return [event["type"] for event in viewer.events]


def only_session(live: Live) -> Session:
    [session] = live.service.sessions
    return session


async def test_a_viewer_without_a_microphone_sees_a_living_face_and_hears_silence() -> None:
    async with serving() as live, watching(live) as viewer:
        loudest = [0]
        viewer.on_sound.append(
            lambda frame: loudest.append(int(np.abs(frame.to_ndarray().astype(int)).max()))
        )
        await asyncio.sleep(2.5)
        report = viewer.finish()
        assert (report.width, report.height) == (128, 128)
        assert report.frames >= 40
        assert report.sound_packets >= 80
        assert max(loudest) < 50
        stats = report.server_stats[-1]
        assert stats["type"] == "stats"
        assert stats["fps"] > 15
        assert {"hop", "lookahead", "queue", "engine", "wait"} <= stats["legs_ms"].keys()
        assert "mic" not in stats["legs_ms"]
        assert isinstance(stats["dropped"], int)


async def test_a_beep_comes_back_in_the_frame_that_shows_it() -> None:
    settings = ServerSettings(frame_code=True)
    codes: list[tuple[float, frame_code.FrameCode]] = []
    heard: list[tuple[float, np.ndarray]] = []
    async with serving(FakeEngine(), settings) as live:
        viewer = Viewer(live.url)
        viewer.on_frame.append(
            lambda f: codes.append((f.time, frame_code.read(f.to_ndarray(format="rgb24"))))
        )
        viewer.on_sound.append(lambda f: heard.append((f.time, f.to_ndarray()[0, ::2])))
        try:
            await viewer.connect(Beeper())
            await until(lambda: len(codes) > 100, 30)
        finally:
            await viewer.close()
        events = (await live.http.get("/api/test/events")).json()["events"]

    read = [code for _, code in codes if code is not None]
    assert len(read) >= 0.98 * len(codes)
    counters = [code.counter for code in read]
    assert counters == sorted(set(counters))
    flagged = {c.id: at for at, c in codes if c is not None and c.flags & frame_code.FLAG_BEEP}
    assert len(flagged) >= 3
    for event in events:
        if event["id"] in flagged:
            assert event["frame"] == event["sample"] // 1920
            legs = [event[leg] for leg in ("mic_packet", "pcm", "frame_made", "frame_sent")]
            assert legs == sorted(legs)
            assert 0 < legs[-1] - legs[0] < 2
    assert skews(flagged, heard) < 0.045


def skews(flagged: dict[int, float], heard: list[tuple[float, np.ndarray]]) -> float:
    """Median over the beeps of |sound - picture| on the media line, in seconds."""
    onsets = [
        at + float(np.argmax(np.abs(pcm.astype(int)) > 3000)) / 48_000
        for at, pcm in heard
        if np.abs(pcm.astype(int)).max() > 3000
    ]
    starts = [at for at, before in zip(onsets, [-1.0, *onsets], strict=False) if at - before > 0.2]
    return float(np.median([min(abs(at - start) for start in starts) for at in flagged.values()]))


async def test_lost_packets_are_concealed_and_cost_no_lasting_delay() -> None:
    settings = ServerSettings(frame_code=True)
    async with serving(settings=settings) as live, watching(live, Beeper()) as viewer:
        session = only_session(live)
        numbers, lost = itertools.count(), 0

        def lossy(packet: bytes) -> bytes | None:
            nonlocal lost
            n = next(numbers)
            if n % 23 == 7 or n % 101 in (50, 51, 52):
                lost += 1
                return None
            return packet

        tamper(viewer, lossy)
        await asyncio.sleep(6)
        assert lost >= 10
        intake = session.line.intake
        assert intake is not None
        assert intake.concealed + intake.late >= 0.5 * lost * 960
        events = live.service.beeps.events()  # type: ignore[union-attr]
        held = [e["pcm"] - e["mic_packet"] for e in events if e["mic_packet"]]
        delay = intake.target_delay_s  # 0, unless a busy machine makes the packets uneven
        assert np.median(held[len(held) // 2 :]) < 0.060 + delay  # the library's own buffer: 0.280
        assert viewer.report.state == "connected"


async def test_sound_that_is_no_opus_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as live, watching(live, Beeper()) as viewer:
        rng = np.random.default_rng(0)
        tamper(viewer, lambda packet: packet[:20] + rng.bytes(int(rng.integers(0, 400))))
        await asyncio.sleep(1.5)
        tamper(viewer, lambda packet: packet)
        shown = len(viewer.shown)
        await until(lambda: len(viewer.shown) > shown + 20, 15)
        assert viewer.report.state == "connected"
        assert len(live.service.sessions) == 1


async def test_ping_is_answered_and_nonsense_ignored() -> None:
    async with serving() as live, watching(live) as viewer:
        heard: list[dict[str, object]] = []
        viewer.control.on("message", lambda text: heard.append(json.loads(text)))
        await until(lambda: viewer.control.readyState == "open", 5)
        for nonsense in ("", "{", "[]", "7", '{"type": 3}', "[" * 5000, "x" * 9000, b"\x00\xff"):
            viewer.control.send(nonsense)
        viewer.control.send(json.dumps({"type": "ping", "t": 12.5}))
        await until(lambda: {"type": "pong", "t": 12.5} in heard, 5)
        assert len(live.service.sessions) == 1


async def test_an_interruption_is_acknowledged_and_the_face_goes_on() -> None:
    async with serving() as live, watching(live, Beeper()) as viewer:
        session = only_session(live)
        utterance = session.speech.begin("long", SoundFormat(48_000))
        utterance.push(np.full(48_000 * 10, 9000, "<i2").tobytes())
        utterance.end()
        await until(lambda: "speaking_started" in kinds(viewer), 5)
        await asyncio.sleep(0.3)
        viewer.control.send(json.dumps({"type": "interrupt"}))
        await until(lambda: "interrupted" in kinds(viewer), 5)
        [told] = [event for event in viewer.events if event["type"] == "interrupted"]
        assert told["utterance"] == "long"
        assert 200 < told["position_ms"] < 5000
        assert told["dropped"] == []
        assert viewer.events[-1]["type"] != "speaking_started"
        assert session.speech.buffered_s == 0
        shown = len(viewer.shown)
        await until(lambda: len(viewer.shown) > shown + 10, 10)
        await until(lambda: session.mood == "idle", 5)


async def test_a_viewer_that_hangs_up_is_gone_within_three_seconds() -> None:
    async with serving() as live:
        async with watching(live):
            session = weakref.ref(only_session(live))
        took = await until(lambda: len(live.service.sessions) == 0, 10)
        assert took < 3
        gone = session()
        assert gone is None or (gone.on_close == [] and gone.closed_for is not None)


async def test_a_viewer_that_falls_silent_is_freed_by_the_watchdog() -> None:
    settings = ServerSettings(watchdog_s=1.5, resume_s=0)
    async with serving(settings=settings) as live:
        async with watching(live) as viewer:
            fall_silent(viewer)
            took = await until(lambda: len(live.service.sessions) == 0, 10)
            assert 0.5 < took < 6


async def test_a_viewer_that_never_connects_is_freed() -> None:
    async with serving(settings=ServerSettings(connect_timeout_s=0.6)) as live:
        viewer = Viewer(live.url)
        viewer.pc.addTransceiver("video", direction="recvonly")
        viewer.pc.addTransceiver("audio", direction="recvonly")
        await viewer.pc.setLocalDescription(await viewer.pc.createOffer())
        sdp = "\r\n".join(
            line
            for line in viewer.pc.localDescription.sdp.splitlines()
            if not line.startswith("a=candidate")
        )
        answer = await live.http.post("/api/offer", json={"sdp": sdp + "\r\n", "type": "offer"})
        assert answer.status_code == 200
        assert len(live.service.sessions) == 1
        await until(lambda: len(live.service.sessions) == 0, 5)
        await viewer.close()


async def test_an_engine_that_fails_ends_that_session_alone_and_says_why() -> None:
    engine = FakeEngine(side=128)
    async with serving(engine) as live, watching(live) as healthy:
        engine.fail_at = 15
        ill = Viewer(live.url)
        await ill.connect(None)
        engine.fail_at = None
        await until(lambda: len(live.service.sessions) == 1, 15)
        await until(lambda: "closing" in kinds(ill), 5)
        error, closing = ill.events[-2:]
        assert (error["type"], error["code"]) == ("error", "engine_failed")
        assert "frame 15" in error["message"]
        assert closing == {"type": "closing", "reason": "failed"}
        shown = len(healthy.shown)
        await until(lambda: len(healthy.shown) > shown + 20, 15)
        text = (await live.http.get("/metrics")).text
        assert "portraittalk_sessions_failed_total 1.0" in text
        assert (await live.http.get("/healthz")).status_code == 200
        await ill.close()


async def test_one_viewer_too_many_is_told_to_wait_until_a_place_is_free() -> None:
    async with serving(settings=ServerSettings(max_sessions=1)) as live:
        async with watching(live):
            late = Viewer(live.url)
            with pytest.raises(RuntimeError, match=r"HTTP 503.*server_full"):
                await late.connect(None)
            await late.close()
            response = await live.http.post(
                "/api/offer", json={"sdp": await offer_sdp(), "type": "offer"}
            )
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) >= 1
        await until(lambda: len(live.service.sessions) == 0, 5)
        async with watching(live):
            pass


async def test_who_connects_when_the_last_place_was_just_taken_is_told_so() -> None:
    async with serving(settings=ServerSettings(max_sessions=1)) as live:
        made = await live.http.post("/api/sessions", json={})
        async with watching(live):
            late = Viewer(live.url, session_id=made.json()["session_id"])
            await late.connect(None)
            await until(lambda: {"type": "closing", "reason": "full"} in late.events, 10)
            assert late.shown == []
            await until(lambda: len(live.service.sessions) == 1, 5)
            await late.close()


async def test_a_full_server_refuses_before_it_does_any_work() -> None:
    class Counting(FakeEngine):
        read = 0

        def read_prompt(self, text: str) -> Prompt:
            self.read += 1
            return super().read_prompt(text)

    engine = Counting(side=64)
    service = AvatarService(engine, ServerSettings(max_sessions=1, capacity=1))
    await service.start(PORTRAIT, "Test")
    session = await service.open_session(SessionOptions(prompt="smile"))
    outlet = Outlet()
    assert session.attach(outlet)
    assert engine.read == 1
    with pytest.raises(ServerFull):
        await service.open_session(SessionOptions(prompt="sad"))
    with pytest.raises(ApiError, match="not known"):
        await service.open_session(SessionOptions(portrait_id="nobody", prompt="sad"))
    with pytest.raises(BadSdp):
        await service.offer("v=0", SessionOptions(prompt="sad"), "")
    assert engine.read == 1
    await session.close()
    with pytest.raises(PromptRefused):  # and that costs no place
        await service.open_session(SessionOptions(prompt="older"))
    await service.open_session(SessionOptions(prompt="sad"))
    await service.stop()


async def test_two_viewers_are_served_side_by_side() -> None:
    async with serving() as live, watching(live) as one, watching(live, Beeper()) as two:
        await until(lambda: len(one.shown) > 30 and len(two.shown) > 30, 20)


async def test_a_session_ends_when_asked_and_asking_again_is_harmless() -> None:
    async with serving() as live, watching(live) as viewer:
        path = f"/api/sessions/{viewer.session_id}"
        assert (await live.http.delete(path)).status_code == 204
        assert len(live.service.sessions) == 0
        assert (await live.http.delete(path)).status_code == 204


async def test_closing_again_and_at_once_is_harmless() -> None:
    async with serving() as live, watching(live):
        session = only_session(live)
        await asyncio.gather(session.close(), session.close())
        await session.close()


async def test_ten_viewers_one_after_another_leave_nothing_behind() -> None:
    async with serving(FakeEngine(side=256)) as live:
        sizes, sessions = [], []
        for _ in range(12):
            async with watching(live, Beeper()) as viewer:
                sessions.append(weakref.ref(only_session(live)))
                await until(lambda viewer=viewer: len(viewer.shown) > 5, 15)
            await until(lambda: len(live.service.sessions) == 0, 5)
            del viewer
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss / 2**20)
        await asyncio.sleep(0.1)
        gc.collect()
        assert sum(ref() is not None for ref in sessions) <= 1
        assert sizes[-1] - sizes[1] < 20, sizes
        assert not [t for t in threading.enumerate() if "decoder" in t.name]


async def test_stopping_the_server_hangs_up_on_everybody() -> None:
    async with serving() as live:
        viewer = Viewer(live.url)
        await viewer.connect(None)
        await until(lambda: viewer.report.first_frame_s is not None, 15)
        worker = live.service.worker
    assert not worker.alive
    await until(lambda: viewer.pc.iceConnectionState in ("closed", "failed", "completed"), 5)
    await viewer.close()
    await asyncio.sleep(
        0.5
    )  # the library closes the sockets of a connection that was hung up a little later


async def test_a_viewer_is_told_that_it_is_ready_and_what_happens() -> None:
    async with serving() as live, watching(live) as viewer:
        await until(lambda: "stats" in kinds(viewer), 10)
        assert kinds(viewer)[:2] == ["ready", "viewers"]
        assert viewer.events[0]["session_id"] == viewer.session_id
        assert viewer.events[1]["count"] == 1
        await live.http.patch(f"/api/sessions/{viewer.session_id}", json={"state": "thinking"})
        await until(lambda: {"type": "state", "state": "thinking"} in viewer.events, 5)
        await live.http.delete(f"/api/sessions/{viewer.session_id}")
        await until(lambda: {"type": "closing", "reason": "client"} in viewer.events, 5)


async def test_a_session_made_over_http_is_joined_and_speaks() -> None:
    async with serving() as live:
        made = await live.http.post("/api/sessions", json={"voice": "assistant"})
        assert made.status_code == 201
        path = made.headers["Location"]
        assert (await live.http.get(path)).json()["viewers"] == 0
        loudest = [0]
        async with watching(live, Beeper(), session_id=made.json()["session_id"]) as viewer:
            assert viewer.session_id == made.json()["session_id"]
            viewer.on_sound.append(
                lambda frame: loudest.append(int(np.abs(frame.to_ndarray().astype(int)).max()))
            )
            await asyncio.sleep(1.5)
            assert max(loudest) < 300  # the microphone is not what the face says
            utterance = only_session(live).speech.begin("hello", SoundFormat(16_000))
            utterance.push((9000 * np.sin(np.arange(16_000) / 5)).astype("<i2").tobytes())
            utterance.end()
            await until(lambda: "speaking_stopped" in kinds(viewer), 10)
            assert max(loudest) > 4000
            started, stopped = (
                next(e for e in viewer.events if e["type"] == f"speaking_{what}")
                for what in ("started", "stopped")
            )
            assert started["utterance"] == stopped["utterance"] == "hello"
            assert stopped["position_ms"] == pytest.approx(1000, abs=2)
            assert stopped["interrupted"] is False


async def test_a_viewer_whose_network_died_comes_back_to_the_same_face() -> None:
    settings = ServerSettings(watchdog_s=30, max_sessions=1)  # the old connection is not missed
    async with serving(settings=settings) as live, watching(live, Beeper()) as lost:
        session, token = only_session(live), lost.token
        assert token is not None
        state = session.stream._state
        fall_silent(lost)
        frames = state.next_frame
        async with watching(live, Beeper(), resume=token) as viewer:
            assert (viewer.session_id, viewer.token) == (lost.session_id, lost.token)
            assert only_session(live) is session
            assert session.stream._state is state
            assert state.next_frame > frames  # it goes on, it does not begin again
            assert (live.service.sessions.live, len(session.broadcast.outlets)) == (1, 1)
            assert session.on_close == [live.service.find_viewer(session.id).close]
            assert session.microphone is live.service.find_viewer(session.id)
            await until(lambda: len(viewer.shown) > 20, 10)
        await until(lambda: len(live.service.sessions) == 0, 5)


async def test_a_viewer_that_was_missed_may_come_back_for_a_while() -> None:
    settings = ServerSettings(watchdog_s=0.7, resume_s=20)
    async with serving(settings=settings) as live:
        async with watching(live) as lost:
            session, token = only_session(live), lost.token
            assert token is not None
            fall_silent(lost)
            await until(lambda: not session.live, 10)
            frame = session.stream._state.next_frame
            await asyncio.sleep(0.5)
            assert session.stream._state.next_frame <= frame + 3  # nobody looks, nothing is drawn
            async with watching(live, resume=token):
                assert only_session(live) is session


async def test_an_unknown_token_or_session_is_said_so() -> None:
    async with serving() as live:
        for asked in ({"resume": "nobody"}, {"session_id": "nobody"}):
            viewer = Viewer(live.url, **asked)
            with pytest.raises(RuntimeError, match=r"HTTP 404.*unknown_session"):
                await viewer.connect(None)
            await viewer.close()


async def test_another_face_appears_in_the_middle_of_a_stream() -> None:
    async with serving() as live, watching(live) as viewer:
        blue = encoded(Image.new("RGB", (96, 96), (40, 90, 200)))
        answer = await live.http.post(
            "/api/portraits", content=blue, headers={"Content-Type": "image/png"}
        )
        corners: list[np.ndarray] = []
        viewer.on_frame.append(lambda frame: corners.append(frame.to_ndarray(format="rgb24")[4, 4]))
        path = f"/api/sessions/{viewer.session_id}"
        changed = await live.http.patch(path, json={"portrait_id": answer.json()["id"]})
        assert changed.json()["portrait_id"] == answer.json()["id"]
        await until(lambda: bool(corners) and int(corners[-1][2]) > 150, 10)
        assert {"type": "portrait", "portrait_id": answer.json()["id"]} in viewer.events
        session = only_session(live)
        assert session.portrait_id == answer.json()["id"]
        unknown = await live.http.patch(path, json={"portrait_id": "nobody"})
        assert unknown.status_code == 404
        assert session.portrait_id == answer.json()["id"]
