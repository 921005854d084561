"""Settings of the server's tests."""

from __future__ import annotations

from hypothesis import settings

# Other work shares the machine: a slow example says nothing.
settings.register_profile("shared machine", deadline=None, max_examples=40)
settings.load_profile("shared machine")
