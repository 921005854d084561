"""What leaves a live session is marked, in each way out; viewers are told that it is synthetic."""

from __future__ import annotations

import asyncio
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks.voice import wav
from engine.face.image_file import decode_image
from engine.types import RgbImage
from engine.watermark.detector import find_mark, flattened
from engine.watermark.payload import Payload
from server.doors.python_api import Avatar
from server.settings import BUNDLED_PORTRAIT, ServerSettings
from tests.doors.recordings import beeps
from tests.server.fake_engine import FakeEngine
from tests.server.live import serving, until, watching

KEY = "a key of sixteen letters"
FACE = decode_image(BUNDLED_PORTRAIT.read_bytes())


class PhotoEngine(FakeEngine):
    """Draws on a photo, whatever portrait is enrolled."""

    def enroll(self, image: RgbImage, *, face: int | None = None) -> RgbImage:
        return super().enroll(FACE, face=face)


def summed(pictures: list[np.ndarray]) -> np.ndarray:
    return np.sum([flattened(picture) for picture in pictures], 0)


async def test_what_a_viewer_sees_says_which_session_it_is(tmp_path: Path) -> None:
    settings = ServerSettings(
        port=0, mark_key=KEY, deployment="here", publish_to=(str(tmp_path),), disclosure="on"
    )
    async with serving(PhotoEngine(side=512), settings) as live, watching(live) as viewer:
        (session,) = live.service.sessions
        seen: list[np.ndarray] = []
        viewer.on_frame.append(lambda frame: seen.append(frame.to_ndarray(format="gray")))
        published = tmp_path / "session.mp4"
        path = f"/api/sessions/{session.id}"
        sender = await live.http.post(f"{path}/publish", json={"url": published.as_uri()})
        assert sender.status_code == 201, sender.text
        await live.http.post(f"{path}/say", content=wav(beeps(1)))
        await until(lambda: len(seen) >= 40, 30)
        ended = await live.http.delete(sender.headers["Location"], timeout=60)
        assert ended.status_code == 204
        disclosed = [event for event in viewer.events if event["type"] == "disclosure"]
        assert disclosed == [{"type": "disclosure", "synthetic": True, "label": "AI-generated"}]
        assert (await live.http.get("/api/config")).json()["disclosure"] == "AI-generated"
        whose = Payload.of("here", session.id)
    with av.open(str(published)) as container:
        recorded = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    for pictures in (seen[-20::4], recorded[-20::4]):
        found = await asyncio.to_thread(find_mark, summed(pictures), [KEY])
        assert found is not None
        assert found.payload == whose
        assert await asyncio.to_thread(find_mark, summed(pictures), scale=1.0) is None
    c2pa = pytest.importorskip("c2pa")
    with c2pa.Reader(str(published)) as reader:
        assert reader.get_validation_state() == "Valid"


async def test_the_picture_of_a_face_at_rest_is_marked_once() -> None:
    """A frame that is the one before again is not made anew: its pattern does not change either."""
    async with serving(PhotoEngine(side=128)) as live, watching(live):
        (session,) = live.service.sessions
        planes = []
        outlet = session.broadcast.outlets[0]
        show = outlet.show
        outlet.show = lambda shown: (planes.append(shown), show(shown))  # type: ignore[assignment]
        await until(lambda: len(planes) >= 10, 15)
    again = [
        (one, other)
        for one, other in zip(planes, planes[1:], strict=False)
        if np.array_equal(one.picture.rgb, other.picture.rgb)
    ]
    assert again
    assert all(np.array_equal(one.yuv, other.yuv) for one, other in again)


@pytest.mark.parametrize("paced", [False, True])
async def test_what_a_program_gets_is_marked(paced: bool) -> None:
    async with Avatar.load(FACE, engine=PhotoEngine(side=256)) as face:
        noise = np.random.default_rng(0).integers(-9000, 9000, 24_000).astype(np.int16)
        frames = [frame async for frame, _ in face.speak(noise, rate_hz=24_000, paced=paced)]
    grey = [np.asarray(Image.fromarray(frame).convert("L")) for frame in frames[::4]]
    assert find_mark(summed(grey), scale=1.0) is not None


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        (ServerSettings(), None),
        (ServerSettings(host="0.0.0.0", insecure=True), "AI-generated"),
        (ServerSettings(host="0.0.0.0", insecure=True, disclosure="off"), None),
        (ServerSettings(disclosure="on", disclosure_label="Von einer KI"), "Von einer KI"),
    ],
)
def test_viewers_beyond_the_machine_are_told_unless_it_is_turned_off(
    settings: ServerSettings, label: str | None
) -> None:
    assert settings.disclosed == label
