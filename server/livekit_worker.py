"""The command `portraittalk livekit-worker`. Heavy imports are made inside, as in `server.cli`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import ConfigError
from engine.option_groups import with_groups
from engine.options import EngineOptions
from server.settings import BUNDLED_PORTRAIT

if TYPE_CHECKING:
    from engine.config import EngineConfig

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomOptions:
    """Which room, and as whom."""

    url: Annotated[
        str | None, typer.Option(envvar="LIVEKIT_URL", help="LiveKit server, wss://...")
    ] = None
    token: Annotated[
        str | None,
        typer.Option(envvar="LIVEKIT_TOKEN", help="Token of the avatar; or --room and a key."),
    ] = None
    room: Annotated[str | None, typer.Option(help="Room to make a token for.")] = None
    api_key: Annotated[
        str | None, typer.Option(envvar="LIVEKIT_API_KEY", help="Signs the token.")
    ] = None
    api_secret: Annotated[
        str | None, typer.Option(envvar="LIVEKIT_API_SECRET", help="Signs the token.")
    ] = None
    identity: Annotated[str, typer.Option(help="The avatar's identity in the room.")] = (
        "portraittalk-avatar"
    )
    agent: Annotated[
        str | None,
        typer.Option(
            help="Identity of the agent whose avatar it is; the first agent's if not given."
        ),
    ] = None

    def address(self) -> tuple[str, str]:
        """The server's address and a token.

        Raises:
            ConfigError: something is missing.
            BackendUnavailable: the extra is not installed.
        """
        if not self.url:
            raise ConfigError("no server: give --url, or set LIVEKIT_URL")
        if self.room is None and self.token:
            return self.url, self.token
        if not (self.room and self.api_key and self.api_secret):
            raise ConfigError(
                "no token: give --token (LIVEKIT_TOKEN), or --room with LIVEKIT_API_KEY and "
                "LIVEKIT_API_SECRET"
            )
        from server.doors.livekit import make_token

        return self.url, make_token(
            self.api_key,
            self.api_secret,
            room=self.room,
            identity=self.identity,
            agent_identity=self.agent,
        )


@app.command("livekit-worker")
@with_groups
def livekit_worker(
    *,
    room: RoomOptions,
    server: Annotated[
        str | None,
        typer.Option(help="portraittalk server that draws, http://...; drawn here if not given."),
    ] = None,
    portrait: Annotated[
        Path | None,
        typer.Option(
            "--portrait", "-p", help="Image of one person, if drawn here; the bundled one."
        ),
    ] = None,
    engine: EngineOptions,
) -> None:
    """Join a LiveKit room as the avatar of its agent, until the agent or the room is gone.

    The agent sends its voice as to any avatar worker (a `DataStreamAudioOutput`, or `AvatarSession(join=
    False)` of `server.doors.livekit`); the worker publishes `avatar_video` and `avatar_audio`,
    stops at `lk.clear_buffer` and answers with the position that was played.

    An agent in Python needs no worker: its `AvatarSession` joins by itself.

    Needs `pip install 'portraittalk[livekit]'`. Example:

    `portraittalk livekit-worker --url wss://my.livekit.cloud --room demo --portrait me.jpg`
    """
    from engine.profiles.choose import make_config

    url, token = room.address()
    config = make_config(engine.profile, engine.common(), {}, live=True)
    drawn = server or (config, portrait or BUNDLED_PORTRAIT)
    with contextlib.suppress(KeyboardInterrupt):
        why = asyncio.run(work(url, token, room.agent, drawn))
        typer.echo(f"left the room: {why}")


async def work(
    url: str, token: str, agent: str | None, drawn: str | tuple[EngineConfig, Path]
) -> str:
    """Be the avatar; returns why it ended. It is drawn at a server's address, or here."""
    from engine.profiles import load_profile
    from server.doors.livekit import joined, take_part
    from server.programs.embedded import embedded
    from server.programs.link import Link, LocalLink
    from server.programs.remote_link import RemoteLink

    async with contextlib.AsyncExitStack() as stack:
        link: Link
        if isinstance(drawn, str):
            link = RemoteLink(drawn)
        else:
            config, portrait = drawn
            engine = await asyncio.to_thread(load_profile, config)
            link = LocalLink(await stack.enter_async_context(embedded(portrait, engine=engine)))
        room = await stack.enter_async_context(joined(url, token))
        typer.echo(f"in the room {room.name}")
        await take_part(room, link, agent)
        return link.closed_for or "the agent or the room is gone"
