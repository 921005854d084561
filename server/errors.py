"""One table: what each error of ours is to an HTTP client."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from engine.errors import AvatarError, MediaError, PortraitRefused, PromptRefused
from engine.face.image_file import BadImage, ImageTooLarge
from server.audit import AuditFailed
from server.live.limits import RETRY_AFTER_S, ServerFull, TooManyOffers
from server.live.worker import WorkerBusy, WorkerStopped
from server.portraits import PortraitsFull
from server.sound.sound_format import SpeechRefused
from server.targets import TargetRefused
from server.webrtc.signaling import BadSdp


class ApiError(AvatarError):
    """A refusal with its HTTP status and stable code."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


_TABLE: dict[type[Exception], tuple[int, str]] = {
    BadImage: (400, "bad_image"),
    ImageTooLarge: (413, "too_large"),
    MediaError: (422, "bad_sound"),
    BadSdp: (400, "bad_sdp"),
    ServerFull: (503, "server_full"),
    PortraitsFull: (503, "portraits_full"),
    AuditFailed: (503, "audit_failed"),
    TooManyOffers: (429, "too_many_offers"),
    WorkerBusy: (503, "server_full"),
    WorkerStopped: (503, "engine_stopped"),
    PromptRefused: (422, "bad_prompt"),
}


def refusal(error: Exception) -> ApiError:
    """Translate `error` for an HTTP client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PortraitRefused):
        return ApiError(422, error.code, str(error))
    if isinstance(error, SpeechRefused):
        return _speech_refusal(error)
    if isinstance(error, TargetRefused):
        status = {"target_not_allowed": 403, "target_exists": 409}.get(error.code, 422)
        return ApiError(status, error.code, str(error))
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return ApiError(error.status_code, code, error.detail, dict(error.headers or {}))
    if type(error) not in _TABLE and not isinstance(error, AvatarError):
        return ApiError(500, "internal", "the server made a mistake; its log says which")
    status, code = _TABLE.get(type(error), (500, "internal"))
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else None
    return ApiError(status, code, str(error), headers)


def _speech_refusal(error: SpeechRefused) -> ApiError:
    status = {"speech_full": 429, "bad_format": 422}.get(error.code, 409)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 429 else None
    return ApiError(status, error.code, str(error), headers)
