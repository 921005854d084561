"""A folder of talking videos -> prepared clips, a contact sheet and a report of what was left out.

Run again it goes on where it stopped: a video whose record is there is not touched. A video that
cannot be read is named in the report with the reason, and the next one is taken.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, DataError, MediaError
from engine.face.detector import Face, FaceReader
from engine.face.framing import LIFT, MARGIN, SIDE, cut_square, head_square
from engine.face.head_mask import without_background
from engine.outputs import own_folder
from engine.training.data.clips import ClipArrays, ClipCard, write_clip
from engine.training.data.face_embedding import FaceEmbedder
from engine.training.data.face_track import Piece, TrackSettings, track
from engine.training.data.speech_features import SpeechFeatures
from engine.training.data.talking_video import HOP, frames_at, sound_of
from engine.training.data.video_folders import Layout, Video, find_videos
from engine.types import Pcm, RgbImage

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSettings:
    """How videos become clips; the folder keeps them, and a second run must agree."""

    size: int = SIDE  # pixels a side of a prepared frame
    references: int = 16  # frames a clip that may stand as reference
    test_share: float = 0.2  # of the people, when the layout does not say who
    track: TrackSettings = TrackSettings()

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 2048 or self.size % 8:
            raise ConfigError(f"size={self.size}: wanted a multiple of 8 from 32 to 2048")


@dataclass(frozen=True, slots=True)
class Tools:
    """The networks that preparing needs."""

    reader: FaceReader
    features: SpeechFeatures
    embed: FaceEmbedder
    landmarks: str = "bundled"  # whose the reader's are


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one video; `records/KEY.json`."""

    video: str
    stamp: tuple[int, int]  # size in bytes and time of change: another file is another video
    clips: tuple[str, ...] = ()
    frames: int = 0
    seconds: float = 0.0
    left_out: str = ""  # why nothing was made of it


def prepare(
    root: Path,
    out: Path,
    tools: Tools,
    settings: PrepareSettings,
    *,
    layout: Layout = "auto",
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[Record]:
    """Prepare every video under `root` into `out`; records of all of them, in order.

    Args:
        shard: (i, n): take only every n-th video from the i-th on, so that n processes share one.
        progress: called with (videos done, videos in all, the next one's name).

    Raises:
        DataError: there are no videos, or the layout is another.
        ConfigError: `out` was prepared with other settings.
    """
    videos = find_videos(root, layout, settings.test_share)[shard[0] :: shard[1]]
    _same_settings(out, settings, tools)
    records = []
    for done, video in enumerate(videos):
        progress(done, len(videos), video.name)
        path = out / "records" / f"{video.key}.json"
        record = _known(path, video)
        if record is None:
            record = _prepare_one(video, out, tools, settings)
            _write_json(path, dataclasses.asdict(record))
        records.append(record)
    progress(len(videos), len(videos), "")
    return records


def _same_settings(out: Path, settings: PrepareSettings, tools: Tools) -> None:
    made_by = {"face_encoder": tools.embed.name, "landmarks": tools.landmarks}
    wanted = {**dataclasses.asdict(settings), **made_by, "margin": MARGIN, "lift": LIFT}
    path = out / "prepare.json"
    if not path.exists():
        own_folder(out)
        _write_json(path, wanted)
        return
    try:
        kept = {"landmarks": "bundled", **json.loads(path.read_text())}  # it was not always said
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    other = [k for k in wanted if kept.get(k) != wanted[k]]
    if other:
        raise ConfigError(
            f"{out} was prepared with other settings ({', '.join(other)}); "
            "name another folder, or use the same settings"
        )
    own_folder(out, earlier=True)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1))
    part.replace(path)


def _stamp(video: Video) -> tuple[int, int]:
    stat = video.path.stat()
    return stat.st_size, stat.st_mtime_ns


def _known(path: Path, video: Video) -> Record | None:
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text())
        raw |= {"stamp": tuple(raw["stamp"]), "clips": tuple(raw["clips"])}
        record = Record(**raw)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # a damaged record is as good as none: the video is prepared again
    return record if record.stamp == _stamp(video) else None


def _prepare_one(video: Video, out: Path, tools: Tools, settings: PrepareSettings) -> Record:
    stamp = _stamp(video)
    try:
        counted = _Counted(frames_at(video.path))
        pieces = track(counted, tools.reader, settings.track)
        if not pieces:
            why = (
                f"no face of {settings.track.min_face_px:g} px or more is seen for "
                f"{settings.track.least_frames} frames on end"
            )
            return Record(video.name, stamp, left_out=why)
        sound = sound_of(video.path, counted.count, video.sound)
        _remove_old(out, video)
        names = _write_clips(video, pieces, sound, out, tools, settings)
    except (MediaError, DataError) as error:
        return Record(video.name, stamp, left_out=str(error))
    frames = sum(len(p.faces) for p in pieces)
    return Record(video.name, stamp, names, frames, frames / 25)


def _remove_old(out: Path, video: Video) -> None:
    """Clips of an earlier run over a video that has changed since, or that was broken off."""
    number = re.compile(re.escape(video.key) + r"_\d{3,}(\.part)?")
    for folder in (out / "clips").glob(f"{video.key}_*"):
        if number.fullmatch(folder.name):
            shutil.rmtree(folder)


class _Counted:
    """Hands an iterator on and counts."""

    def __init__(self, source: Iterator[RgbImage]) -> None:
        self._source, self.count = source, 0

    def __iter__(self) -> Iterator[RgbImage]:
        for item in self._source:
            self.count += 1
            yield item


def _write_clips(
    video: Video,
    pieces: list[Piece],
    sound: Pcm | None,
    out: Path,
    tools: Tools,
    settings: PrepareSettings,
) -> tuple[str, ...]:
    frames, at = frames_at(video.path), 0
    names = []
    for number, piece in enumerate(pieces):
        name = f"{video.key}_{number:03d}"
        count = len(piece.faces)
        corner, side = head_square(piece.landmarks, *piece.size)
        x, y = (corner + side / 2).tolist()
        frames = itertools.islice(frames, piece.first - at, None)
        at = piece.first + count
        cut = _Embedding(piece, corner, side, tools.embed, settings)
        card = ClipCard(
            video=video.name,
            person=video.person,
            split=video.split,
            prompt=video.prompt,
            first_frame=piece.first,
            frames=count,
            size=settings.size,
            crop=(x, y, side),
            face_encoder=tools.embed.name,
            landmarks=tools.landmarks,
        )
        said = None if sound is None else sound[piece.first * HOP : at * HOP]
        write_clip(out / "clips" / name, card, cut.arrays(said, tools.features), cut.run(frames))
        names.append(name)
    return tuple(names)


class _Embedding:
    """Cuts the frames of one piece, and embeds those that may stand as reference."""

    def __init__(
        self,
        piece: Piece,
        corner: F32,
        side: float,
        embed: FaceEmbedder,
        settings: PrepareSettings,
    ) -> None:
        self._corner = corner
        self._piece, self._side, self._size = piece, side, settings.size
        self._embed = embed
        self.landmarks = ((piece.landmarks - self._corner) / side).astype(np.float32)
        count = min(settings.references, len(piece.faces))
        spread = np.linspace(0, len(piece.faces) - 1, count).round().astype(np.int64)
        self.reference_frames: NDArray[np.int64] = np.unique(spread)
        self.embeddings = np.zeros((len(self.reference_frames), embed.width), np.float32)

    def arrays(self, sound: Pcm | None, features: SpeechFeatures) -> ClipArrays:
        """The clip's numbers; `embeddings` fills while `run` is read."""
        faces: list[Face] = self._piece.faces
        speech = None if sound is None else np.asarray(features(sound), np.float32)
        return ClipArrays(
            self.landmarks,
            np.array([[f.yaw, f.pitch] for f in faces], np.float32),
            np.stack([f.scores for f in faces]),
            np.array([f.confidence for f in faces], np.float32),
            self.reference_frames,
            self.embeddings,
            sound,
            speech,
        )

    def run(self, frames: Iterator[RgbImage]) -> Iterator[RgbImage]:
        """The crops (size, size, 3) of the piece, one a frame."""
        slots = {int(frame): row for row, frame in enumerate(self.reference_frames)}
        for index, rgb in enumerate(itertools.islice(frames, len(self._piece.faces))):
            crop = cut_square(rgb, self._corner, self._side, self._size)
            if index in slots:
                points = self.landmarks[index]
                alone = without_background(crop, points)
                self.embeddings[slots[index]] = self._embed(alone, points * self._size)
            yield crop
