"""What the assistant says: by a script that needs nothing, or by a chat model behind an OpenAI-shaped address."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

_SENTENCE = re.compile(r"(?<=[.!?…])\s+")
TIMEOUT_S = 30
SYSTEM = (
    "You are a friendly assistant who is seen and heard as a talking portrait. Answer in one to three short "
    "spoken sentences of plain words: no lists, no markup, no emoji."
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the visitor said: its words if there are ears (empty: not understood), and how long it took."""

    words: str | None
    seconds: float


class Brain(Protocol):
    """Answers turns."""

    def greeting(self) -> str:
        """The first sentence."""
        ...

    def answer(self, turn: Turn) -> AsyncIterator[str]:
        """Sentences, each as soon as it is known."""
        ...

    def said(self, text: str) -> None:
        """Take note of what the visitor really heard of an answer."""
        ...


class Script:
    """A few things it knows, by words that it listens for; without words it answers that somebody spoke."""

    KNOWN = (
        (("what time is it", "the time", "how late is it"), "It is {time}."),
        (
            ("what is your name", "your name", "who are you"),
            "I am the portrait on this page. Everything I say is made on this machine.",
        ),
        (("how are you",), "Very well, thank you. I was drawn just a moment ago."),
        (("hello", "hi", "hey", "good morning"), "Hello! Nice to hear you."),
        (("goodbye", "bye", "see you"), "Goodbye! It was nice to talk with you."),
        (
            ("tell me a story", "a story", "story", "tell me something", "talk to me"),
            "Once there was a portrait that hung in a hall and said nothing for a hundred years. Then somebody "
            "sent it a voice, twenty milliseconds at a time. It has not been quiet since. You may interrupt "
            "it whenever you like, and it stops in the middle of a word.",
        ),
    )
    WORDLESS = (
        "I heard you speak for {seconds}. My ears tell me when you speak, but not what you say.",
        "That was {seconds} of speech. Interrupt me whenever you like: I stop at once.",
        "Yes? I listened for {seconds}. With a chat model behind me I would answer that better.",
    )
    LOST = (
        "I did not understand that. Ask me for the time, my name, or a story.",
        "Say that again, please? I know the time, and a story.",
    )

    def __init__(self) -> None:
        self._turns = 0

    @classmethod
    def phrases(cls) -> list[str]:
        """All that it listens for."""
        return [phrase for phrases, _ in cls.KNOWN for phrase in phrases]

    def greeting(self) -> str:
        """The first sentence."""
        return "Hello! I am a talking portrait. Press talk, and speak with me."

    async def answer(self, turn: Turn) -> AsyncIterator[str]:
        """One answer, sentence by sentence."""
        for sentence in sentences(self._choose(turn)):
            yield sentence

    def said(self, text: str) -> None:
        """It does not care."""

    def _choose(self, turn: Turn) -> str:
        self._turns += 1
        if turn.words is None:
            return self._in_turns(self.WORDLESS).format(seconds=spoken_seconds(turn.seconds))
        heard = f" {turn.words.lower()} "
        for phrases, reply in self.KNOWN:
            if any(f" {phrase} " in heard for phrase in phrases):
                return reply.format(time=time.strftime("%I:%M %p").lstrip("0"))
        return self._in_turns(self.LOST)

    def _in_turns(self, replies: tuple[str, ...]) -> str:
        return replies[(self._turns - 1) % len(replies)]


def spoken_seconds(seconds: float) -> str:
    """A length as one says it."""
    whole = max(1, round(seconds))
    return "one second" if whole == 1 else f"{whole} seconds"


def sentences(text: str) -> Iterator[str]:
    """Cut a text into sentences."""
    return (part for part in _SENTENCE.split(text.strip()) if part)


class BrainFailed(Exception):
    """The chat model does not answer; the message says how."""


@dataclass
class Chat:
    """A chat model: `url` is the base, as https://api.openai.com/v1 or http://localhost:11434/v1."""

    url: str
    model: str
    key: str | None = None
    system: str = SYSTEM
    _messages: list[dict[str, str]] = field(default_factory=list)

    def greeting(self) -> str:
        """The first sentence."""
        return "Hello! What can I do for you?"

    async def answer(self, turn: Turn) -> AsyncIterator[str]:
        """Ask the model; raises `BrainFailed`."""
        self._messages.append(
            {"role": "user", "content": turn.words or "(could not be understood)"}
        )
        pieces: asyncio.Queue[str | BrainFailed | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def read() -> None:
            end: BrainFailed | None = None
            try:
                for piece in self._ask():
                    loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except (OSError, ValueError, LookupError) as error:
                end = BrainFailed(f"{self.url}: {error}")
            loop.call_soon_threadsafe(pieces.put_nowait, end)

        reading = loop.run_in_executor(None, read)
        text = ""
        while isinstance(piece := await pieces.get(), str):
            *whole, text = _SENTENCE.split(text + piece)
            for sentence in whole:
                yield sentence
        await reading
        if text.strip():
            yield text.strip()
        if piece is not None:
            raise piece

    def said(self, text: str) -> None:
        """What was cut off was not said."""
        if text:
            self._messages.append({"role": "assistant", "content": text})

    def _ask(self) -> Iterator[str]:
        """The pieces of the answer as they come."""
        system = {"role": "system", "content": self.system}
        body = {"model": self.model, "stream": True, "messages": [system, *self._messages[-20:]]}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            for line in response:
                data = line.decode().removeprefix("data:").strip()
                if line.startswith(b"data:") and data != "[DONE]":
                    choices = json.loads(data)["choices"]
                    piece = choices[0]["delta"].get("content") if choices else None
                    if piece:
                        yield piece
