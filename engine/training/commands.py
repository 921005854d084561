"""What `portraittalk prepare` does; the command line only names the options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from engine.audio.speech_encoder import SPEECH, StreamingSpeechEncoder
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.render.specs import ENROLL
from engine.training.data.clips import load_clips
from engine.training.data.contact_sheet import contact_sheet, report
from engine.training.data.face_embedding import FaceEmbedder, TinyEmbedder
from engine.training.data.face_track import TrackSettings
from engine.training.data.prepare import PrepareSettings, Tools, prepare
from engine.training.data.speech_features import (
    SPEECH_ENCODERS,
    hubert_features,
    streaming_features,
)
from engine.training.data.video_folders import Layout

FACE_ENCODERS = ("tiny", "sface", "auraface", "insightface")


def prepare_folder(
    videos: Path,
    out: Path,
    *,
    layout: str = "auto",
    size: int = 512,
    shard: str = "0/1",
    face_encoder: str = "tiny",
    speech: str = "tiny",
    models_dir: Path = Path("models"),
    least_frames: int = 25,
    threads: int = 1,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> str:
    """Prepare `videos` into `out`; the report, which `out` keeps as well.

    Args:
        progress: called with (videos done, videos in all, name of the next one).

    Raises:
        DataError: there are no videos, or nothing could be made of any.
        ConfigError: an unknown name, or `out` was prepared with other settings.
        WeightsError: a network is missing; the message holds the command that brings it.
    """
    settings = PrepareSettings(size=size, track=TrackSettings(least_frames=least_frames))
    part = parse_shard(shard)
    if layout not in get_args(Layout):
        raise ConfigError(f"layout {layout!r}: wanted one of {', '.join(get_args(Layout))}")
    tools = load_tools(face_encoder, speech, models_dir, threads)
    records = prepare(
        videos, out, tools, settings, layout=cast(Layout, layout), shard=part, progress=progress
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


def load_tools(face_encoder: str, speech: str, models_dir: Path, threads: int) -> Tools:
    """The networks that preparing needs; the tiny ones come with the package.

    Raises:
        ConfigError: an unknown name.
        WeightsError: a network is missing; the message holds the command that brings it.
    """
    for name, known in ((face_encoder, FACE_ENCODERS), (speech, SPEECH_ENCODERS)):
        if name not in known:
            raise ConfigError(f"{name!r} is unknown; one of {', '.join(known)}")
    runtime, weights = load_backend("openvino", threads=threads), EngineConfig().weights
    detector, landmarks, encoder, enroll = (
        runtime.load(spec, weights / f"{spec.name}.onnx")
        for spec in (DETECTOR, LANDMARKS, SPEECH, ENROLL)
    )
    embed: FaceEmbedder = TinyEmbedder(enroll)
    if face_encoder != "tiny":
        from engine.loaders.face_encoder import load_face_encoder
        from engine.loaders.registry import require

        embed = load_face_encoder(face_encoder, require(face_encoder, models_dir))
    features = (
        streaming_features(StreamingSpeechEncoder(encoder))
        if speech == "tiny"
        else hubert_features(speech, models_dir)
    )
    return Tools(FaceReader(detector, landmarks), features, embed)
