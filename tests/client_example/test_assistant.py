"""The example assistant: when somebody speaks, what it says, and a whole conversation with a server."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from websockets.asyncio.client import connect

from client_example.assistant.brain import BrainFailed, Chat, Script, Turn
from client_example.assistant.conversation import Conversation, Said
from client_example.assistant.ears import Pocketsphinx
from client_example.assistant.vad import RATE_HZ, Began, Ended, VoiceDetector
from client_example.assistant.voice import Espeak, NoVoice, Word
from client_example.headless import Viewer
from tests.server.live import serving, until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def voice() -> Espeak:
    try:
        return Espeak()
    except NoVoice as missing:
        pytest.skip(str(missing))


# When somebody speaks


def noise(seconds: float, db: float) -> bytes:
    pcm = np.random.default_rng(5).normal(0, 32768 * 10 ** (db / 20), round(seconds * RATE_HZ))
    return np.clip(pcm, -32768, 32767).astype("<i2").tobytes()


def speech(seconds: float, db: float = -20.0, *, rate_hz: int = RATE_HZ) -> bytes:
    """A buzz that swells and fades four times a second, as syllables do."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    buzz = np.sign(np.sin(2 * np.pi * 140 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
    return (buzz * 32767 * 10 ** (db / 20)).astype("<i2").tobytes()


def events(
    sound: bytes, *, cut: int = 640, over_speech: bool = False
) -> list[tuple[float, object]]:
    """What a fresh detector says, each with the seconds heard by then."""
    detector, found = VoiceDetector(), []
    for at in range(0, len(sound), cut):
        part = sound[at : at + cut]
        heard_s = (at + len(part)) / 2 / RATE_HZ
        found += [(heard_s, e) for e in detector.push(part, over_speech=over_speech)]
    return found


@pytest.mark.parametrize("db", [-100.0, -60.0, -45.0])
def test_silence_and_noise_are_nobody(db: float) -> None:
    assert not events(noise(5, db))


def test_speech_is_noticed_at_once_and_its_first_sound_is_kept() -> None:
    background = noise(2, -60)
    spoken = speech(1)
    (began_s, began), (ended_s, ended) = events(background + spoken + noise(2, -60))
    assert isinstance(began, Began)
    assert 2.0 < began_s <= 2.1
    assert isinstance(ended, Ended)
    assert 3.55 <= ended_s <= 3.75
    assert spoken in ended.sound
    assert ended.seconds == pytest.approx(1.0, abs=0.1)


def test_a_pause_for_breath_does_not_end_a_turn() -> None:
    sound = noise(1, -60) + speech(1) + noise(0.4, -60) + speech(1) + noise(1, -60)
    assert [type(e) for _, e in events(sound)] == [Began, Ended]


def test_a_click_is_nobody() -> None:
    assert not events(noise(1, -60) + speech(0.03, -6) + noise(1, -60))


def test_what_leaks_from_the_loudspeaker_does_not_interrupt_but_a_visitor_does() -> None:
    quiet = noise(2, -60)
    assert not events(quiet + speech(1, -40) + quiet, over_speech=True)
    assert events(quiet + speech(1, -40) + quiet)
    [(began_s, _), _] = events(quiet + speech(1) + quiet, over_speech=True)
    assert began_s <= 2.15


def test_a_fan_that_is_switched_on_is_taken_for_noise_after_a_while() -> None:
    sound = noise(1, -65) + noise(30, -42)
    late = [e for at, e in events(sound + speech(1, -15) + noise(1, -42)) if at > 31.0]
    assert [type(e) for e in late] == [Began, Ended]


def test_it_does_not_matter_how_the_sound_is_cut() -> None:
    sound = noise(1, -60) + speech(1) + noise(1, -60)
    assert [e for _, e in events(sound, cut=640)] == [e for _, e in events(sound, cut=1234)]


# What it says


def test_the_voice_says_when_each_word_is_spoken(voice: Espeak) -> None:
    text = "Well - it is 10:35 now, isn't it? Über a café."
    spoken = voice.speak(text)
    assert " ".join(word.text for word in spoken.words) == text
    starts = [word.start_ms for word in spoken.words]
    assert starts == sorted(starts)
    assert all(a.end_ms == b.start_ms for a, b in zip(spoken.words, spoken.words[1:], strict=False))
    assert spoken.words[-1].end_ms == pytest.approx(spoken.duration_ms)
    assert 2000 < spoken.duration_ms < 8000
    assert np.abs(np.frombuffer(spoken.pcm, "<i2").astype(int)).max() > 3000


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(NoVoice, match=r"klingonish|apt-get"):
        Espeak("klingonish")


def test_the_ears_know_the_phrases_of_the_script(voice: Espeak) -> None:
    pytest.importorskip("pocketsphinx")
    ears = Pocketsphinx(Script.phrases())
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)

    def understood(text: str) -> str:
        spoken = voice.speak(text)
        pcm = np.pad(np.frombuffer(spoken.pcm, "<i2"), (6_000, 12_000))
        frame = av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
        frame.sample_rate = spoken.rate_hz
        return ears.words(
            b"".join(part.to_ndarray().tobytes() for part in resampler.resample(frame))
        )

    for phrase in ("What time is it?", "What is your name?", "Tell me a story."):
        assert understood(phrase) == phrase[:-1].lower()
    assert understood("I would like a car") == ""
    assert ears.words(noise(1, -60)) == ""


@pytest.mark.usefixtures("voice")
async def test_without_a_server_its_command_says_how_to_start_one() -> None:
    command = [sys.executable, "-m", "client_example.assistant", "--server", "http://127.0.0.1:9"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().strip() == (
        "assistant: no server answers at http://127.0.0.1:9; start one with `portraittalk serve`"
    )


async def all_of(brain: Script | Chat, words: str | None, seconds: float = 2.0) -> list[str]:
    return [sentence async for sentence in brain.answer(Turn(words, seconds))]


async def test_the_script_answers_what_it_knows() -> None:
    brain = Script()
    assert "quiet since" in " ".join(await all_of(brain, "please tell me a story"))
    assert "M." in (await all_of(brain, "what time is it"))[0].replace("AM.", "M.")
    assert await all_of(brain, "purple") != await all_of(brain, "purple"), "it repeats itself"
    assert "2 seconds" in (await all_of(brain, None))[0]


class ChatServer(BaseHTTPRequestHandler):
    """A chat endpoint as OpenAI's."""

    asked: list[tuple[str | None, dict[str, object]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.headers["Authorization"], body))
        self.send_response(200 if self.path == "/v1/chat/completions" else 404)
        self.end_headers()
        for piece in ("Good", " day. I am", " a model.", " Ask me"):
            chunk = {"choices": [{"delta": {"content": piece}}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b'data: {"choices": []}\n\ndata: [DONE]\n\n')

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def chat_server() -> Iterator[HTTPServer]:
    ChatServer.asked = []
    with HTTPServer(("127.0.0.1", 0), ChatServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_chat_model_is_spoken_sentence_by_sentence(chat_server: HTTPServer) -> None:
    brain = Chat(f"http://127.0.0.1:{chat_server.server_port}/v1/", "small", "secret")
    assert await all_of(brain, "hello") == ["Good day.", "I am a model.", "Ask me"]
    brain.said("Good day. I")  # interrupted there
    await all_of(brain, "who?")
    key, body = ChatServer.asked[-1]
    assert key == "Bearer secret"
    assert body["model"] == "small"
    said = [(m["role"], m["content"]) for m in body["messages"][1:]]  # type: ignore[index]
    assert said == [("user", "hello"), ("assistant", "Good day. I"), ("user", "who?")]


async def test_a_chat_model_that_is_not_there_is_named() -> None:
    with pytest.raises(BrainFailed, match="127.0.0.1:9"):
        await all_of(Chat("http://127.0.0.1:9/v1", "small"), "hello")


def test_what_was_heard_is_what_had_begun() -> None:
    said = Said("a", [Word("One", 0, 400), Word("two", 400, 800), Word("three.", 800, 1500)], 1500)
    assert said.heard_by(700) == "One two"


# A whole conversation


class Mouth(MediaStreamTrack):
    """A microphone into which the test speaks."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[bytes] = deque()
        self._began, self._sent = time.monotonic(), 0

    def say(self, pcm: bytes) -> None:
        self.waiting.extend(pcm[at : at + 1920] for at in range(0, len(pcm) // 1920 * 1920, 1920))

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(max(0.0, self._began + self._sent / 48_000 - time.monotonic()))
        pcm = self.waiting.popleft() if self.waiting else bytes(1920)
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None], "s16", "mono")
        frame.sample_rate, frame.pts = 48_000, self._sent
        frame.time_base = Fraction(1, 48_000)
        self._sent += 960
        return frame


async def test_it_greets_is_interrupted_and_answers(voice: Espeak) -> None:
    lines: list[str] = []
    seen: list[dict[str, object]] = []
    async with serving() as live:
        url = f"{live.url.replace('http', 'ws')}/api/speech?listen=16000"
        async with connect(url, proxy=None) as socket:
            session_id = json.loads(await socket.recv())["session_id"]
            session = live.service.find_session(session_id)
            session.events.subscribe(lambda event: seen.append(event.message()))
            talk = asyncio.create_task(
                Conversation(socket, Script(), voice, tell=lines.append).run()
            )
            viewer, mouth = Viewer(live.url, session_id=session_id), Mouth()

            def told(kind: str) -> list[dict[str, object]]:
                return [event for event in seen if event["type"] == kind]

            try:
                await viewer.connect(mouth)
                await until(lambda: len(told("caption")) >= 3, 20)
                assert [c["text"] for c in told("caption")][:2] == ["Hello!", "I am"]
                mouth.say(speech(1.0, rate_hz=48_000))
                began = len(told("caption"))
                await until(lambda: bool(told("interrupted")), 5)
                [cut] = told("interrupted")
                assert cut["utterance"] == "answer-1"
                last = told("caption")[-1]
                assert last["start_ms"] <= cut["position_ms"]  # type: ignore[operator]
                assert len(told("caption")) < began + 6, "it talked on"
                await until(lambda: any(line.startswith("(cut off after") for line in lines), 5)
                await until(lambda: len(told("speaking_started")) == 2, 15)
                moods = [e["state"] for e in told("state")]
                heard = moods.index("listening")
                assert moods[heard:][:3] == ["listening", "thinking", "speaking"]
                assert any("I heard you speak for one second" in line for line in lines)
                await live.http.delete(f"/api/sessions/{session_id}")
                assert await asyncio.wait_for(talk, 5) == "client"
            finally:
                await viewer.close()
                talk.cancel()
