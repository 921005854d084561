"""Settings of the server's tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fewer", settings.get_profile("shared machine"), max_examples=40)
settings.load_profile("fewer")
