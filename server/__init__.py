"""WebRTC sessions around one engine; `from server import Avatar` for programs of one's own."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.doors.python_api import Avatar

__all__ = ["Avatar"]


def __getattr__(name: str) -> Any:
    """Import `Avatar`, and all that is behind it, when it is asked for."""
    if name == "Avatar":
        from server.doors.python_api import Avatar

        return Avatar
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
