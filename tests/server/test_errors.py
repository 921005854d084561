"""What each error is to an HTTP client."""

from __future__ import annotations

import pytest

from engine.errors import AvatarError, PortraitRefused
from engine.face.image_file import BadImage, ImageTooLarge
from server.errors import ApiError, refusal
from server.live.limits import ServerFull
from server.live.worker import WorkerBusy, WorkerStopped
from server.webrtc.signaling import BadSdp


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadImage("x"), 400, "bad_image"),
        (ImageTooLarge("x"), 413, "too_large"),
        (PortraitRefused("no_face", "x"), 422, "no_face"),
        (BadSdp("x"), 400, "bad_sdp"),
        (ServerFull("x"), 503, "server_full"),
        (WorkerBusy("x"), 503, "server_full"),
        (WorkerStopped("x"), 503, "engine_stopped"),
        (ApiError(418, "teapot", "x"), 418, "teapot"),
        (AvatarError("x"), 500, "internal"),
    ],
)
def test_every_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    api = refusal(error)
    assert (api.status, api.code, str(api)) == (status, code, "x")
    assert ("Retry-After" in (api.headers or {})) == (status == 503)
