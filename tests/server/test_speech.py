"""The assistant's voice: however it comes, it is spoken whole, in order, and known by position."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.live.events import EventHub
from server.live.speech import (
    LIMIT_S,
    MOST_UTTERANCES,
    MOST_WORDS,
    SpeechInput,
    Utterance,
    Word,
)
from server.sound.intake import Pcm48
from server.sound.sound_format import Decoder, SoundFormat, SpeechRefused

RATE_HZ, PACKET = 48_000, 960


class Mouth:
    """A speech input whose sound is taken in packets and played some of them later."""

    def __init__(self, delay: int = 0) -> None:
        self.hub = EventHub()
        self.told: list[dict[str, Any]] = []
        self.hub.subscribe(lambda event: self.told.append(event.message()))
        self.speech = SpeechInput(self.hub)
        self.delay = delay
        self.place = 0
        self.said: list[Pcm48] = []

    def go(self, packets: int) -> Pcm48:
        """Take so many packets; what was taken."""
        begin = len(self.said)
        for _ in range(packets):
            self.said.append(self.speech.take(PACKET, self.place))
            self.place += PACKET
            self.speech.played(max(0, self.place - self.delay * PACKET))
        return np.concatenate([np.zeros(0, np.int16), *self.said[begin:]])

    def kinds(self, *wanted: str) -> list[tuple[str, Any]]:
        return [(e["type"], e["utterance"]) for e in self.told if e["type"] in wanted]


def say(mouth: Mouth, pcm: Pcm48, name: str | None = None) -> Utterance:
    utterance = mouth.speech.begin(name, SoundFormat(RATE_HZ))
    utterance.push(pcm.astype("<i2").tobytes())
    utterance.end()
    return utterance


def ramp(samples: int, begin: int = 1) -> Pcm48:
    return np.asarray(np.arange(begin, begin + samples) % 30_000 + 1, dtype=np.int16)


def encoded(sound: SoundFormat, seconds: float) -> bytes:
    """A tone in that format."""
    count = round(sound.rate_hz * seconds)
    pcm = np.asarray(12_000 * np.sin(np.arange(count) * 2 * np.pi * 300 / sound.rate_hz), np.int16)
    if sound.encoding == "pcm16":
        return pcm.astype("<i2").tobytes()
    codec = av.CodecContext.create({"ulaw": "pcm_mulaw", "alaw": "pcm_alaw"}[sound.encoding], "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout, codec.format = sound.rate_hz, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = sound.rate_hz
    return b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))


def decoded(sound: SoundFormat, parts: list[bytes]) -> Pcm48:
    decoder = Decoder(sound)
    return np.concatenate([*(decoder.push(part) for part in parts), decoder.end()])


FORMATS = [
    SoundFormat(rate)
    for rate in (8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
] + [
    SoundFormat(8000, "ulaw"),
    SoundFormat(8000, "alaw"),
]


@given(st.sampled_from(FORMATS), st.lists(st.integers(0, 3000), max_size=12))
def test_the_cuts_of_the_bytes_change_no_sample(sound: SoundFormat, cuts: list[int]) -> None:
    data = encoded(sound, 0.25)
    whole = decoded(sound, [data])
    edges = sorted({min(cut, len(data)) for cut in np.cumsum([0, *cuts])} | {len(data)})
    parts = [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    np.testing.assert_array_equal(decoded(sound, [b"", *parts]), whole)


@pytest.mark.parametrize("sound", FORMATS, ids=lambda f: f"{f.rate_hz}-{f.encoding}")
def test_every_format_comes_out_as_the_same_tone(sound: SoundFormat) -> None:
    pcm = decoded(sound, [encoded(sound, 1.0)])
    assert len(pcm) == pytest.approx(RATE_HZ, abs=RATE_HZ * 0.002)
    wanted = 12_000 * np.sin(np.arange(len(pcm)) * 2 * np.pi * 300 / RATE_HZ)
    middle = slice(4800, -4800)
    assert np.abs(pcm - wanted)[middle].max() < 700


def test_half_a_sample_at_the_end_is_left_out() -> None:
    assert len(decoded(SoundFormat(RATE_HZ), [b"\x01"])) == 0
    np.testing.assert_array_equal(decoded(SoundFormat(RATE_HZ), [b"\x01", b"\x00\x02"]), [1])


@pytest.mark.parametrize(("rate", "encoding"), [(0, "pcm16"), (7999, "pcm16"), (8000, "mp3")])
def test_a_format_that_is_not_taken_is_said_so(rate: int, encoding: Any) -> None:
    with pytest.raises(SpeechRefused) as caught:
        SoundFormat(rate, encoding)
    assert caught.value.code == "bad_format"
    assert str(rate if encoding == "pcm16" else encoding) in str(caught.value)


@given(st.lists(st.integers(0, 4000), min_size=1, max_size=6))
def test_utterances_are_spoken_whole_one_after_the_other_without_a_gap(lengths: list[int]) -> None:
    mouth = Mouth()
    sounds = [ramp(length, begin=i) for i, length in enumerate(lengths)]
    for i, sound in enumerate(sounds):
        say(mouth, sound, str(i))
    total = sum(lengths)
    said = mouth.go(total // PACKET + 2)
    np.testing.assert_array_equal(said[:total], np.concatenate(sounds))
    assert not said[total:].any()
    told = mouth.kinds("speaking_started", "speaking_stopped")
    spoken = [str(i) for i, length in enumerate(lengths) if length]
    assert told == [
        (kind, name) for name in spoken for kind in ("speaking_started", "speaking_stopped")
    ]
    stops = [e for e in mouth.told if e["type"] == "speaking_stopped"]
    assert [e["position_ms"] for e in stops] == [round(n / 48, 1) for n in lengths if n]
    assert not mouth.speech.busy


def test_a_picture_that_leaves_after_its_sound_is_still_one_of_the_utterance() -> None:
    speech = SpeechInput(EventHub())
    utterance = speech.begin("a", SoundFormat(48_000))
    utterance.push(ramp(4800).tobytes())
    for place in range(0, 4800, 960):
        speech.take(960, place)
    speech.played(3840)
    assert [part.utterance for part in speech.spoken(1920, 3840)] == ["a", "a"]
    speech.interrupt()
    assert speech.spoken(1920, 4800) == ()


def test_one_that_comes_slower_than_it_is_spoken_waits_in_silence_and_keeps_its_place() -> None:
    mouth = Mouth()
    utterance = mouth.speech.begin("slow", SoundFormat(RATE_HZ))
    say(mouth, ramp(PACKET), "next")
    utterance.push(ramp(PACKET).tobytes())
    mouth.go(1)
    assert not mouth.go(3).any()  # the next one does not push in
    utterance.push(ramp(PACKET, begin=PACKET).tobytes())
    utterance.end()
    np.testing.assert_array_equal(mouth.go(1), ramp(PACKET, begin=PACKET))
    assert mouth.kinds("speaking_stopped") == [("speaking_stopped", "slow")]
    assert mouth.told[-1]["position_ms"] == 40.0
    np.testing.assert_array_equal(mouth.go(1), ramp(PACKET))


def test_an_utterance_that_is_ended_after_it_was_spoken_is_over_then() -> None:
    mouth = Mouth()
    utterance = mouth.speech.begin("late", SoundFormat(RATE_HZ))
    utterance.push(ramp(PACKET).tobytes())
    mouth.go(3)
    assert mouth.kinds("speaking_stopped") == []
    utterance.end()
    mouth.go(1)
    assert mouth.kinds("speaking_stopped") == [("speaking_stopped", "late")]


def test_sixty_seconds_may_wait_and_the_rest_is_refused_whole() -> None:
    mouth = Mouth()
    utterance = mouth.speech.begin(None, SoundFormat(RATE_HZ))
    second = bytes(2 * RATE_HZ)
    for _ in range(int(LIMIT_S)):
        utterance.push(second)
    other = mouth.speech.begin(None, SoundFormat(8000, "ulaw"))
    for full in (utterance, other):
        with pytest.raises(SpeechRefused) as caught:
            full.push(b"\x00\x00")
        assert caught.value.code == "speech_full"
    assert mouth.speech.buffered_s == LIMIT_S
    mouth.go(50)
    utterance.push(second)
    assert mouth.speech.buffered_s == LIMIT_S


@pytest.mark.parametrize("size_s", [61, 600])
def test_one_push_cannot_go_beyond_the_bound(size_s: int) -> None:
    mouth = Mouth()
    utterance = mouth.speech.begin(None, SoundFormat(8000, "ulaw"))
    with pytest.raises(SpeechRefused) as caught:
        utterance.push(bytes(8000 * size_s))
    assert caught.value.code == "speech_full"
    assert mouth.speech.buffered_s == 0
    utterance.push(bytes(8000 * 59))


def test_an_id_can_be_used_again_once_it_is_over_and_not_before() -> None:
    mouth = Mouth()
    say(mouth, ramp(PACKET), "a")
    for name in ("a", "x" * 101):
        with pytest.raises(SpeechRefused) as caught:
            mouth.speech.begin(name)
        assert caught.value.code == "bad_utterance"
    mouth.go(3)
    say(mouth, ramp(PACKET), "a")
    assert len({mouth.speech.begin(None).id for _ in range(20)}) == 20


def test_nothing_is_pushed_after_the_end() -> None:
    mouth = Mouth()
    utterance = say(mouth, ramp(PACKET), "a")
    with pytest.raises(SpeechRefused) as caught:
        utterance.push(b"\x00\x00")
    assert caught.value.code == "utterance_over"
    utterance.end()
    assert mouth.speech.buffered_s == PACKET / RATE_HZ


@given(
    st.lists(st.integers(0, 20_000), min_size=1, max_size=4), st.integers(0, 40), st.integers(0, 12)
)
def test_interrupted_at_any_moment_it_says_what_was_played(
    lengths: list[int], moment: int, delay: int
) -> None:
    mouth = Mouth(delay)
    for i, length in enumerate(lengths):
        say(mouth, ramp(length), str(i))
    mouth.go(moment)
    played = max(0, moment - delay) * PACKET
    ends = np.cumsum(lengths)
    name, position_ms = mouth.speech.interrupt()
    if played and played < ends[-1]:
        i = int(np.searchsorted(ends, played, side="left"))
        begin = int(ends[i]) - lengths[i]
        current = str(i) if played > begin else None
        if played == ends[i]:  # just over: nothing is cut off, unless the next one began
            current = None
        assert name == current
        assert position_ms == ((played - begin) / 48 if current else 0.0)
    else:
        assert (name, position_ms) == (None, 0.0)
    told = mouth.told[-1] if mouth.told[-1]["type"] == "interrupted" else mouth.told[-2]
    assert (told["type"], told["utterance"]) == ("interrupted", name)
    assert name not in told["dropped"]
    assert not mouth.speech.busy
    assert not mouth.go(20).any()
    starts = mouth.kinds("speaking_started")
    stops = mouth.kinds("speaking_stopped")
    assert [n for _, n in starts] == [n for _, n in stops]
    say(mouth, ramp(PACKET), "after")
    np.testing.assert_array_equal(mouth.go(1), ramp(PACKET))


def test_what_was_begun_before_an_interruption_takes_no_more() -> None:
    mouth = Mouth()
    utterance = mouth.speech.begin("cut", SoundFormat(RATE_HZ))
    utterance.push(ramp(PACKET * 5).tobytes())
    mouth.go(2)
    assert mouth.speech.interrupt() == ("cut", 40.0)
    assert utterance.over
    with pytest.raises(SpeechRefused) as caught:
        utterance.push(b"\x00\x00")
    assert caught.value.code == "utterance_over"
    utterance.end()
    assert not mouth.go(5).any()
    stopped = next(e for e in mouth.told if e["type"] == "speaking_stopped")
    assert (stopped["interrupted"], stopped["position_ms"]) == (True, 40.0)


def test_captions_come_with_their_sound_and_none_after_an_interruption() -> None:
    mouth = Mouth()
    utterance = say(mouth, ramp(PACKET * 10), "words")
    times = ((0, 50), (50, 100), (130, 180))
    utterance.align(
        Word(f"w{i}", start_ms=begin, end_ms=end) for i, (begin, end) in enumerate(times)
    )
    seen = []
    for i in range(5):
        mouth.go(1)
        seen.append((20 * (i + 1), [e["text"] for e in mouth.told if e["type"] == "caption"]))
    assert seen[0] == (20, ["w0"])
    assert seen[1] == (40, ["w0"])
    assert seen[2] == (60, ["w0", "w1"])
    assert seen[4] == (100, ["w0", "w1"])
    mouth.speech.interrupt()
    mouth.go(10)
    captions = [e for e in mouth.told if e["type"] == "caption"]
    assert [(e["text"], e["start_ms"], e["utterance"]) for e in captions] == [
        ("w0", 0, "words"),
        ("w1", 50, "words"),
    ]


def test_the_level_of_the_buffer_is_told_now_and_then_and_when_it_is_empty() -> None:
    mouth = Mouth()
    say(mouth, ramp(RATE_HZ))
    mouth.go(60)
    levels = [e["buffered_ms"] for e in mouth.told if e["type"] == "buffer"]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == 0
    assert 3 <= len(levels) <= 6


async def test_utterances_and_words_that_wait_are_bounded() -> None:
    speech = SpeechInput(EventHub())
    first = speech.begin()
    for _ in range(MOST_UTTERANCES - 1):
        speech.begin()
    with pytest.raises(SpeechRefused) as caught:
        speech.begin()
    assert caught.value.code == "speech_full"
    first.align([Word("a", 0, 1)] * MOST_WORDS)
    with pytest.raises(SpeechRefused, match="words"):
        first.align([Word("b", 0, 1)])
    assert len(first.words) == MOST_WORDS
    speech.interrupt()
    speech.begin()  # there is room again
