"""People judge: one offline page with pairs in random order, and what comes of the votes it saves."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from engine.config import FPS, SAMPLE_RATE_HZ
from engine.errors import DataError, MediaError
from engine.evaluation.compare import interval
from engine.evaluation.lossless import to_pcm16
from engine.evaluation.run import Outcome
from engine.training.data.talking_video import frames_at, sound_of

TEMPLATE = Path(__file__).with_name("blind.html")
HIDDEN = "key.json"  # which side is which, apart from the page


@dataclass(frozen=True, slots=True)
class Tally:
    """How often A was chosen, and the interval of its share; ties count half."""

    first: str
    second: str
    votes: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        """One line for people."""
        apart = "no preference shown" if self.low <= 0.5 <= self.high else "a preference"
        return (
            f"{self.first} over {self.second}: {self.share:.0%} of {self.votes} votes "
            f"(95 %: {self.low:.0%} to {self.high:.0%}; {apart})"
        )


def pairs(outcome: Outcome, first: str, second: str) -> Iterator[tuple[str, Path, Path]]:
    """Clip and protocol, and both systems' videos of it."""
    videos = {(r.system, r.protocol, r.clip): r.video for r in outcome.rows}
    for system, protocol, clip in videos:
        if system == first and (second, protocol, clip) in videos:
            yield f"{clip} {protocol}", videos[system, protocol, clip], videos[second, protocol, clip]  # fmt: skip


def write_blind(outcome: Outcome, first: str, second: str, out: Path, *, seed: int) -> int:
    """Write `blind.html` and the key to it; returns the number of pairs.

    Raises:
        DataError: the two systems have no video of one clip.
    """
    found = list(pairs(outcome, first, second))
    if not found:
        raise DataError(f"no clip has a video of both {first} and {second}")
    rng, shown, key = random.Random(seed), [], {}
    rng.shuffle(found)
    for name, a, b in found:
        swapped = rng.random() < 0.5
        left, right = (b, a) if swapped else (a, b)
        ident = hashlib.sha256(f"{seed} {name}".encode()).hexdigest()[:10]
        shown.append({"id": ident, "left": watchable(left), "right": watchable(right)})
        key[ident] = {"clip": name, "left": second if swapped else first}
    hidden = {"first": first, "second": second, "pairs": key}
    (out / HIDDEN).write_text(json.dumps(hidden, indent=1) + "\n")
    page = TEMPLATE.read_text().replace("/* PAIRS */ []", json.dumps(shown))
    (out / "blind.html").write_text(page, encoding="utf-8")
    return len(found)


def read_votes(votes: list[Path], key: Path) -> Tally:
    """Count the files of votes that people saved, against the key.

    Raises:
        DataError: a file is not readable, or of another page.
    """
    hidden = _json(key)
    try:
        first, second, known = str(hidden["first"]), str(hidden["second"]), dict(hidden["pairs"])
        scores = []
        for path in votes:
            for ident, choice in dict(_json(path)["votes"]).items():
                if ident not in known:
                    raise DataError(f"{path}: pair {ident} is not of the page that {key} is for")
                scores.append(_score(choice, known[ident]["left"] == first))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the votes or {key} cannot be read: {error!r}") from error
    if not scores:
        raise DataError("there are no votes")
    low, high = interval(scores)
    return Tally(first, second, len(scores), sum(scores) / len(scores), low, high)


def _score(choice: object, first_is_left: bool) -> float:
    """1 for the first system, 0 for the second, a half for neither."""
    if choice == "same":
        return 0.5
    if choice not in ("left", "right"):
        raise ValueError(f"a vote is left, right or same, not {choice!r}")
    return float((choice == "left") == first_is_left)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def watchable(video: Path) -> str:
    """A video as a data address that browsers play: VP8 and Opus, for both systems alike."""
    coded = video.with_name(f".{video.stem}.blind.webm")
    frames = list(frames_at(video))
    if not frames:
        raise MediaError(f"{video.name} has no frames")
    pcm = sound_of(video, len(frames))
    try:
        with av.open(str(coded), "w") as file:
            picture = file.add_stream("libvpx", rate=FPS, options={"crf": "4", "cpu-used": "5"})
            assert isinstance(picture, VideoStream)
            picture.height, picture.width = frames[0].shape[0] // 2 * 2, frames[0].shape[1] // 2 * 2
            picture.pix_fmt, picture.bit_rate = "yuv420p", 8_000_000
            sound = file.add_stream("libopus", rate=48_000, layout="mono")
            assert isinstance(sound, AudioStream)
            for i, rgb in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(rgb[: picture.height, : picture.width].copy(), format="rgb24")  # fmt: skip
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                file.mux(picture.encode(frame))
            file.mux(picture.encode(None))
            if pcm is not None:
                heard = av.AudioFrame.from_ndarray(to_pcm16(pcm)[None], format="s16", layout="mono")
                heard.sample_rate, heard.pts = SAMPLE_RATE_HZ, 0
                to_48k = av.AudioResampler("s16", "mono", 48_000, frame_size=960)
                for piece in (*to_48k.resample(heard), *to_48k.resample(None)):
                    file.mux(sound.encode(piece))
                file.mux(sound.encode(None))
        return "data:video/webm;base64," + base64.b64encode(coded.read_bytes()).decode()
    finally:
        coded.unlink(missing_ok=True)
