"""The face shows what its assistant does while it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from engine.motion.expression import MAX_PROMPT
from server.live.moods import MOOD_WORDS, worded
from server.live.outlet import Outlet
from server.live.session import Session
from server.live.surroundings import SessionOptions
from server.service import AvatarService
from server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.live import until

IMAGE = np.full((64, 64, 3), 77, dtype=np.uint8)


class Shown:
    """A session that is received, and what its engine was told to express."""

    def __init__(self, service: AvatarService, session: Session, states: list[object]) -> None:
        self.service, self.session, self._states = service, session, states

    async def becomes(self, words: str) -> None:
        await until(lambda: self._texts()[-1:] == [words], 5)

    def _texts(self) -> list[str]:
        [state] = self._states
        return [text for _, text in state.prompts]  # type: ignore[attr-defined]


@pytest.fixture
async def shown() -> AsyncIterator[Shown]:
    engine, states = FakeEngine(side=64), []
    start = engine.start

    def noted(*args: object, **given: object) -> object:
        states.append(start(*args, **given))  # type: ignore[arg-type]
        return states[-1]

    service = AvatarService(engine, ServerSettings(capacity=4))
    await service.start(IMAGE, "Test")
    engine.start = noted  # type: ignore[method-assign,assignment]
    session = await service.open_session(SessionOptions(prompt="smile 0.5"))
    outlet = Outlet()
    session.attach(outlet)
    yield Shown(service, session, states)
    await service.stop()


def said(text: str) -> str:
    return str(FakeEngine().read_prompt(text))


async def test_listening_and_thinking_are_seen_beside_the_prompt(shown: Shown) -> None:
    await shown.becomes(said("smile 0.5"))
    for mood in ("listening", "thinking"):
        shown.session.set_mood(mood)  # type: ignore[arg-type]
        await shown.becomes(said(f"smile 0.5, {MOOD_WORDS[mood]}"))  # type: ignore[index]
    shown.session.set_mood("idle")
    await shown.becomes(said("smile 0.5"))


async def test_a_new_prompt_keeps_the_mood_and_speaking_ends_it(shown: Shown) -> None:
    shown.session.set_mood("thinking")
    await shown.becomes(said(worded("smile 0.5", "thinking")))
    await shown.service.express(shown.session, "sad 0.4")
    await shown.becomes(said(worded("sad 0.4", "thinking")))
    utterance = shown.session.speech.begin()
    utterance.push(bytes(24_000))
    utterance.end()
    await shown.becomes(said("sad 0.4"))
    await asyncio.sleep(0)
    assert shown.session.mood in ("speaking", "idle")


async def test_words_that_leave_no_room_for_the_mood_are_shown_alone(shown: Shown) -> None:
    long = ", ".join(["smile 0.5"] * 36)
    assert len(long) <= MAX_PROMPT < len(worded(long, "thinking"))
    await shown.service.express(shown.session, long)
    shown.session.set_mood("thinking")
    await asyncio.sleep(0.2)
    await shown.becomes(said(long))
