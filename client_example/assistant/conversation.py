"""One conversation over the WebSocket of a session: the visitor's microphone in, the assistant's voice out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection

from .brain import Brain, BrainFailed, Turn, sentences
from .ears import Ears
from .vad import Began, Ended, VoiceDetector
from .voice import Espeak, Word

MOST_WAITING_MS = 20_000  # speech at the server; the rest is sent when there is room
SHORTEST_TURN_S = 0.15
SORRY = "I am sorry, I cannot think right now."


@dataclass
class Said:
    """An answer on its way."""

    id: str
    words: list[Word] = field(default_factory=list)
    length_ms: float = 0.0

    def heard_by(self, position_ms: float) -> str:
        """What was heard of it when it was cut off: the words that had begun."""
        return " ".join(word.text for word in self.words if word.start_ms < position_ms)


class Conversation:
    """Listens and answers until the session ends; `tell` gets a line of what happens."""

    def __init__(
        self,
        socket: ClientConnection,
        brain: Brain,
        voice: Espeak,
        ears: Ears | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._socket, self._brain, self._voice, self._ears = socket, brain, voice, ears
        self._tell = tell
        self._detector = VoiceDetector()
        self._answer: asyncio.Task[None] | None = None  # being thought of and sent
        self._said: dict[str, Said] = {}  # not yet heard to its end
        self._count = 0
        self._greeted = False
        self._room = asyncio.Event()
        self._room.set()

    async def run(self) -> str:
        """Talk until it is over; returns the server's reason."""
        reason = "lost"
        try:
            async for message in self._socket:
                if isinstance(message, bytes):
                    await self._hear(message)
                elif (event := json.loads(message))["type"] == "closing":
                    reason = event["reason"]
                else:
                    await self._follow(event)
        finally:
            await self._stop_answering()
        return reason

    async def _hear(self, pcm: bytes) -> None:
        for event in self._detector.push(pcm, over_speech=bool(self._said)):
            match event:
                case Began():
                    await self._give_way()
                    await self._send(type="state", state="listening")
                case Ended(seconds=seconds) if seconds < SHORTEST_TURN_S:
                    await self._send(type="state", state="idle")  # a cough, a click
                case Ended():
                    await self._stop_answering()
                    self._answer = asyncio.create_task(self._think(event))

    async def _give_way(self) -> None:
        """The visitor speaks: say nothing more, at once."""
        await self._stop_answering()
        if self._said:
            await self._send(type="interrupt")

    async def _stop_answering(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._answer
        self._answer = None

    async def _think(self, turn: Ended) -> None:
        await self._send(type="state", state="thinking")
        words = await asyncio.to_thread(self._ears.words, turn.sound) if self._ears else None
        about = "" if words is None else f": {words or '(not understood)'}"
        self._tell(f"visitor    {turn.seconds:.1f} s{about}")
        try:
            await self._speak(self._brain.answer(Turn(words, turn.seconds)))
        except BrainFailed as error:
            self._tell(f"(the brain failed: {error})")
            await self._speak(_each(SORRY))

    async def _speak(self, text: AsyncIterator[str]) -> None:
        """Send an answer sentence by sentence, each as soon as it is there."""
        self._count += 1
        said = Said(f"answer-{self._count}")
        async for sentence in text:
            await self._room.wait()
            spoken = await asyncio.to_thread(self._voice.speak, sentence)
            if said.id not in self._said:
                self._said[said.id] = said
                await self._send(type="begin", utterance=said.id, rate_hz=spoken.rate_hz)
            begin = said.length_ms
            words = [Word(w.text, w.start_ms + begin, w.end_ms + begin) for w in spoken.words]
            said.words += words
            said.length_ms += spoken.duration_ms
            timed = [{"text": w.text, "start_ms": w.start_ms, "end_ms": w.end_ms} for w in words]
            await self._send(type="words", words=timed)
            await self._socket.send(spoken.pcm)
            self._tell(f"assistant  {sentence}")
        if said.length_ms:
            await self._send(type="end")
        else:  # nothing to say
            await self._send(type="state", state="idle")

    async def _follow(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "viewers" if event["count"] and not self._greeted:
                self._greeted = True
                self._answer = asyncio.create_task(self._speak(_each(self._brain.greeting())))
            case "buffer":
                has_room = event["buffered_ms"] < MOST_WAITING_MS
                self._room.set() if has_room else self._room.clear()
            case "interrupted":
                self._cut(event["utterance"], event["position_ms"])
            case "speaking_stopped" if not event["interrupted"]:
                said = self._said.pop(event["utterance"], None)
                if said is not None:
                    self._brain.said(said.heard_by(said.length_ms))
            case "error":
                self._tell(f"({event['code']}: {event['message']})")

    def _cut(self, utterance: str | None, position_ms: float) -> None:
        said = self._said.get(utterance or "")
        self._said.clear()
        if said is not None:
            heard = said.heard_by(position_ms)
            self._tell(f'(cut off after {position_ms / 1000:.1f} s: "{heard} ...")')
            self._brain.said(heard)

    async def _send(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))


async def _each(text: str) -> AsyncIterator[str]:
    for sentence in sentences(text):
        yield sentence
