"""The command: `python -m client_example.assistant`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import webbrowser
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlencode

import typer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .brain import Brain, Chat, Script
from .conversation import Conversation
from .ears import Ears, NoEars, Pocketsphinx
from .local_server import NoServer, server
from .voice import Espeak, NoVoice

AGAIN_S = 3.0
FULL = (429, 503)  # there may be a place later


async def converse(
    url: str,
    wishes: dict[str, str],
    make: Callable[[], tuple[Brain, Espeak, Ears | None]],
    show: bool,
) -> None:
    """One session after the other, each until it ends; for ever.

    Raises:
        NoServer: the server refuses what is wished.
    """
    query = urlencode({"listen": 16_000, "voice": "assistant", **wishes})
    while True:
        try:
            async with connect(
                f"{url.replace('http', 'ws', 1)}/api/speech?{query}", proxy=None
            ) as socket:
                first = json.loads(await socket.recv())
                link = f"{url}/?session={first['session_id']}"
                typer.echo(f"Open {link} and press Talk.")
                if show:
                    webbrowser.open(link)
                reason = await Conversation(socket, *make(), tell=typer.echo).run()
                typer.echo(f"The conversation is over ({reason}).")
        except InvalidStatus as refused:
            answer = refused.response
            said = f"the server refuses: {answer.body.decode() or answer.status_code}"
            if answer.status_code not in FULL:
                raise NoServer(said) from None
            typer.echo(said, err=True)
        except (OSError, ConnectionClosed) as error:
            typer.echo(f"no connection: {error}", err=True)
        show = False
        await asyncio.sleep(AGAIN_S)


def ears_for(wanted: str, brain_url: str | None) -> Ears | None:
    """The ears that are wanted and there; raises `NoEars`."""
    if wanted == "none":
        return None
    try:
        return Pocketsphinx(() if brain_url else Script.phrases())
    except NoEars as missing:
        if wanted == "words" or brain_url:
            raise
        typer.echo(f"Turns are heard, not words ({missing}).")
        return None


def main(
    server_url: Annotated[
        str | None,
        typer.Option(
            "--server", help="Server to use. Not given: the one at port 8080, or one is started."
        ),
    ] = None,
    portrait: Annotated[str, typer.Option(help="Portrait id.")] = "default",
    prompt: Annotated[str, typer.Option(help='What the face expresses: "smile 0.4".')] = "",
    voice: Annotated[str, typer.Option(help="Voice: `espeak-ng --voices` lists them.")] = "en-us",
    speed: Annotated[int, typer.Option(min=80, max=450, help="Words a minute.")] = 165,
    ears: Annotated[
        Literal["auto", "words", "none"],
        typer.Option(help="Words by pocketsphinx, if it is installed; none: only turns are heard."),
    ] = "auto",
    brain_url: Annotated[
        str | None,
        typer.Option(help="OpenAI-compatible chat, http://localhost:11434/v1; else a script."),
    ] = None,
    brain_model: Annotated[str, typer.Option(help="Its model.")] = "gpt-4o-mini",
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """A talking portrait that answers you.

    Prints a link: open it, press Talk and speak. It stops the moment you do, and answers when you have finished.

    By itself it needs nothing from outside: the voice is espeak-ng (`apt-get install espeak-ng`), what it says is a
    script. With pocketsphinx (`pip install pocketsphinx`) it understands a few phrases: "what time is it", "what is
    your name", "tell me a story". It is no good at free speech; for a real conversation put better ears into ears.py.

    With --brain-url a chat model answers; its key is read from OPENAI_API_KEY.
    """
    try:
        speaker = Espeak(voice, speed)
        listener = ears_for(ears, brain_url)

        def make() -> tuple[Brain, Espeak, Ears | None]:
            key = os.environ.get("OPENAI_API_KEY")
            return (Chat(brain_url, brain_model, key) if brain_url else Script(), speaker, listener)

        wishes = {"portrait_id": portrait, "prompt": prompt}
        with server(server_url) as url, contextlib.suppress(KeyboardInterrupt):
            asyncio.run(converse(url, wishes, make, show))
    except (NoVoice, NoEars, NoServer) as error:
        typer.echo(f"assistant: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
