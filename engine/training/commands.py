"""What `portraittalk prepare` does; the command line only names the options."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from engine.audio.speech_encoder import SPEECH, StreamingSpeechEncoder
from engine.backends import load_backend
from engine.config import EngineConfig, FaceEncoderName
from engine.errors import ConfigError
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.loaders.registry import find, require
from engine.render.specs import ENROLL
from engine.render.tiny_embedding import TinyEmbedder
from engine.training.data.clips import load_clips
from engine.training.data.contact_sheet import contact_sheet, report
from engine.training.data.face_embedding import FaceEmbedder
from engine.training.data.face_track import TrackSettings
from engine.training.data.labeller import Labeller
from engine.training.data.mediapipe_reader import MediaPipeReader
from engine.training.data.prepare import PrepareSettings, Tools, prepare
from engine.training.data.speech_features import (
    SPEECH_ENCODERS,
    hubert_features,
    streaming_features,
)
from engine.training.data.video_folders import Layout

FACE_ENCODERS = get_args(FaceEncoderName)
LANDMARKERS = ("bundled", "mediapipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """The settings of one run of `prepare_folder`."""

    layout: str = "auto"  # one of `Layout`
    size: int = 512  # pixels a side of a prepared frame
    shard: str = "0/1"  # see `parse_shard`
    face_encoder: str = "tiny"  # one of FACE_ENCODERS
    landmarks: str = "bundled"  # one of LANDMARKERS
    speech: str = "tiny"  # one of SPEECH_ENCODERS
    models_dir: Path = Path("models")
    least_frames: int = 25  # a shorter stretch of a video makes no clip
    threads: int = 1  # CPU threads of one graph


def prepare_folder(
    videos: Path,
    out: Path,
    options: PrepareOptions | None = None,
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> str:
    """Prepare `videos` into `out`; returns the report, which is written to `out` as well.

    Args:
        progress: called with (videos done, videos in all, name of the next one).

    Raises:
        DataError: there are no videos, or nothing could be made of any.
        ConfigError: an unknown name, or `out` was prepared with other settings.
        WeightsError: a network is missing; the message holds the command that brings it.
    """
    chosen = options or PrepareOptions()
    track = TrackSettings(least_frames=chosen.least_frames)
    settings = PrepareSettings(size=chosen.size, track=track)
    part = parse_shard(chosen.shard)
    if chosen.layout not in get_args(Layout):
        raise ConfigError(f"layout {chosen.layout!r}: wanted one of {', '.join(get_args(Layout))}")
    layout = cast(Layout, chosen.layout)
    with contextlib.ExitStack() as until_done:
        tools = load_tools(chosen, until_done)
        records = prepare(
            videos, out, tools, settings, layout=layout, shard=part, progress=progress
        )
    text = report(records)
    (out / f"report_{part[0]}_of_{part[1]}.txt").write_text(text)
    if any(record.clips for record in records):
        contact_sheet(load_clips(out), out / "contact_sheet.png")
    return text


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8).

    Raises:
        ConfigError: it is not of that form, or the first number is not below the second.
    """
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise ConfigError(f"shard {text!r}: wanted I/N with I from 0 to N - 1, such as 0/8")
    return int(first), int(second)


def load_tools(chosen: PrepareOptions, until_done: contextlib.ExitStack) -> Tools:
    """The networks that preparing needs; the tiny ones come with the package.

    Raises:
        ConfigError: an unknown name.
        WeightsError: a network is missing; the message holds the command that brings it.
        DataError: MediaPipe is not installed.
    """
    for name, known in (
        (chosen.face_encoder, FACE_ENCODERS),
        (chosen.speech, SPEECH_ENCODERS),
        (chosen.landmarks, LANDMARKERS),
    ):
        if name not in known:
            raise ConfigError(f"{name!r} is unknown; one of {', '.join(known)}")
    models_dir = chosen.models_dir
    label: Labeller | None = None
    embed: FaceEmbedder | None = None
    if chosen.landmarks == "mediapipe":
        task = require("mediapipe-face", models_dir) / find("mediapipe-face").files[0]
        label = until_done.enter_context(contextlib.closing(Labeller(task)))
    if chosen.face_encoder != "tiny":
        from engine.loaders.face_encoder import load_encoder

        embed = load_encoder(chosen.face_encoder, lambda part: require(part, models_dir))
    runtime, weights = load_backend("openvino", threads=chosen.threads), EngineConfig().weights
    detector, landmarks, encoder, enroll = (
        runtime.load(spec, weights / f"{spec.name}.onnx")
        for spec in (DETECTOR, LANDMARKS, SPEECH, ENROLL)
    )
    features = (
        streaming_features(StreamingSpeechEncoder(encoder))
        if chosen.speech == "tiny"
        else hubert_features(chosen.speech, models_dir, EngineConfig().speech_hop_ms)
    )
    reader = FaceReader(detector, landmarks)
    if label is not None:
        reader = MediaPipeReader(detector, landmarks, label)
    return Tools(reader, features, embed or TinyEmbedder(enroll), chosen.landmarks)
