"""The avatar service inside a program of one's own: no port is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.config import EngineConfig
from engine.face.image_file import decode_image
from engine.profiles import load_profile
from engine.types import Engine
from server.service import AvatarService
from server.settings import BUNDLED_PORTRAIT, ServerSettings


@asynccontextmanager
async def embedded(
    portrait: Path | str = BUNDLED_PORTRAIT,
    *,
    engine: Engine | None = None,
    settings: ServerSettings | None = None,
) -> AsyncIterator[AvatarService]:
    """Serve avatars of `portrait` (a picture file) on this event loop until the block ends.

    Args:
        engine: a loaded one; otherwise that of the tiny profile is loaded, in a few seconds.

    Raises:
        AvatarError: the picture cannot be read, or has not exactly one usable face.
    """
    picture = decode_image(await asyncio.to_thread(Path(portrait).read_bytes))

    def load() -> Engine:
        return engine or load_profile(EngineConfig())

    service = AvatarService(await asyncio.to_thread(load), settings or ServerSettings())
    try:
        await service.start(picture, Path(portrait).stem)
        yield service
    finally:
        await asyncio.shield(service.stop())
