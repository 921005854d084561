"""Keys of marks: who knows one can read its marks, and make them."""

from __future__ import annotations

from engine.errors import ConfigError

PUBLIC_KEY = "portraittalk"  # of who has none of their own: everybody can read these marks
LEAST_KEY = 16  # characters of one's own


def check_key(key: str) -> None:
    """Refuse a key that could be guessed; "" is the public one.

    Raises:
        ConfigError: it is short.
    """
    if key and len(key) < LEAST_KEY:
        raise ConfigError(
            f"mark_key: a key has at least {LEAST_KEY} characters: openssl rand -hex 32"
        )
