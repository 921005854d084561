"""A sound file -> face coefficients and head pose in a file, for people who drive 3-D heads."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.audio.sound_file import read_audio
from engine.audio.speech_encoder import HOP, SPEECH, StreamingSpeechEncoder
from engine.backends import load_backend
from engine.checks import check_seed
from engine.config import FPS, EngineConfig
from engine.errors import MediaError
from engine.face import arkit
from engine.motion.decoder import LOOKAHEAD, MOTION, MotionDecoder
from engine.motion.idle import POSE, IdleLife
from engine.outputs import check_file, claimed

F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
_EYE_TURN = 0.6  # radians an eye has turned at coefficient 1

# Live Link Face has its own order: right before left for jaw and mouth.
_LIVE_LINK = list(arkit.NAMES)
for _a, _b in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
    _i, _j = _LIVE_LINK.index(_a), _LIVE_LINK.index(_b)
    _LIVE_LINK[_i], _LIVE_LINK[_j] = _b, _a
_TURNS = [
    part + turn for part in ("Head", "LeftEye", "RightEye") for turn in ("Yaw", "Pitch", "Roll")
]
CSV_COLUMNS: tuple[str, ...] = (
    "Timecode",
    "BlendShapeCount",
    *(name[0].upper() + name[1:] for name in _LIVE_LINK),
    *_TURNS,
)


@dataclass(frozen=True, slots=True)
class MotionTrack:
    """Motion of a whole sound: coefficients (T, 52), pose (T, 6) as in `engine.motion.idle.POSE`.

    `energy` (T,) in [0, 1] says how strongly each frame is spoken.
    """

    coefficients: F32
    pose: F32
    energy: F32


def motion(
    audio: Path | str,
    out: Path | str,
    config: EngineConfig | None = None,
    *,
    seed: int = 0,
    idle: bool = True,
    progress: Progress = lambda done, total: None,
) -> int:
    """Write the motion of sound file `audio` to `out` (.csv or .npz); returns the frame count.

    Args:
        idle: add blinks, glances, brows and head motion; else these stay at rest.
        progress: called with (seconds done, seconds in all) after each.

    Raises:
        MediaError: the sound cannot be read, or `out` is neither .csv nor .npz.
        ConfigError: the seed is out of range, or `out` is a file of somebody else.
        WeightsError: the networks are missing or damaged.
    """
    out = Path(out)
    check_seed(seed)
    check_motion_output(out)
    pcm = read_audio(audio)
    config = config or EngineConfig()
    backend = load_backend(config.backend, threads=config.threads)
    encoder = StreamingSpeechEncoder(backend.load(SPEECH, config.weights / "speech.onnx"))
    decoder = MotionDecoder(backend.load(MOTION, config.weights / "motion.onnx"), encoder.silence)
    with claimed(out):
        life = IdleLife(seed, calm=config.calm) if idle else None
        result = run(encoder, decoder, pcm, life=life, progress=progress)
        partial = out.with_name(f".{out.stem}.part{out.suffix}")
        try:
            (write_csv if out.suffix.lower() == ".csv" else write_npz)(partial, result)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    return len(result.coefficients)


def check_motion_output(out: Path) -> None:
    """Refuse a file that is no motion file, or would take the place of somebody else's.

    Raises:
        MediaError: `out` is neither .csv nor .npz.
        ConfigError: as `check_file`.
    """
    if out.suffix.lower() not in (".csv", ".npz"):
        raise MediaError(
            f"{out.name}: motion is written as .csv or .npz; choose one of these names"
        )
    check_file(out, _is_motion)


def _is_motion(path: Path) -> bool:
    """Whether `write_csv` or `write_npz` made an existing file."""
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="") as file:
                return next(csv.reader(file), []) == list(CSV_COLUMNS)
        with np.load(path) as saved:
            return {"names", "v", "pose", "pose_names"} <= set(saved.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, csv.Error):
        return False


def run(
    encoder: StreamingSpeechEncoder,
    decoder: MotionDecoder,
    pcm: F32,
    *,
    life: IdleLife | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> MotionTrack:
    """Motion of `pcm` (N,) at 16 kHz: ceil(N / 640) frames, the same as a live stream would give."""
    frames = -(-len(pcm) // HOP)
    sound = np.zeros((frames + LOOKAHEAD) * HOP, np.float32)
    sound[: len(pcm)] = pcm
    speech, moving = encoder.start(), decoder.start(seed)
    living = life.start() if life else None
    faces, poses = [np.zeros((0, arkit.COUNT), np.float32)], [np.zeros((0, 6), np.float32)]
    energy = [np.zeros(0, np.float32)]
    seconds = np.array_split(sound.reshape(-1, HOP), max(len(sound) // (FPS * HOP), 1))
    for done, second in enumerate(seconds, 1):
        face = decoder.step(moving, encoder.step(speech, second.reshape(-1)))
        pose = np.tile(np.array([0, 0, 0, 0, 0, 1], np.float32), (len(face), 1))
        if life and living:
            pose, rest = life.step(living, len(face), moving.energy)
            face = np.clip(face + rest, 0, 1)
        faces.append(face)
        poses.append(pose)
        energy.append(moving.energy)
        progress(done, len(seconds))
    return MotionTrack(*(np.concatenate(parts) for parts in (faces, poses, energy)))


def write_npz(path: Path, result: MotionTrack) -> None:
    """Write `names` (52,), `v` (T, 52), `pose` (T, 6), `pose_names` and `fps`."""
    np.savez_compressed(
        path,
        names=np.array(arkit.NAMES),
        v=result.coefficients,
        pose=result.pose,
        pose_names=np.array(POSE),
        fps=np.float32(FPS),
    )


def write_csv(path: Path, result: MotionTrack) -> None:
    """Write the columns of the Live Link Face app, one row a frame at 25 frames a second."""
    order = arkit.indices(*_LIVE_LINK)
    turns = np.concatenate([result.pose[:, :3], eye_turns(result.coefficients)], 1)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(CSV_COLUMNS)
        for t, (face, turn) in enumerate(zip(result.coefficients[:, order], turns, strict=True)):
            numbers = (f"{v:.6f}" for v in (*face, *turn))
            rows.writerow([timecode(t), len(CSV_COLUMNS) - 2, *numbers])


def timecode(frame: int) -> str:
    """Frame number -> `HH:MM:SS:FF.mmm`, counting 25 frames a second."""
    seconds, rest = divmod(frame, FPS)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{rest:02d}.000"


def eye_turns(v: F32) -> F32:
    """Yaw, pitch and roll (always 0) of left and right eye (T, 6) in radians from the gaze."""

    def get(name: str) -> F32:
        return v[:, arkit.index(name)]

    columns: list[F32] = []
    for side, outward in (("Left", 1), ("Right", -1)):
        yaw = (get(f"eyeLookOut{side}") - get(f"eyeLookIn{side}")) * outward
        pitch = get(f"eyeLookDown{side}") - get(f"eyeLookUp{side}")
        columns += [yaw * _EYE_TURN, pitch * _EYE_TURN, np.zeros_like(yaw)]
    return np.stack(columns, 1).astype(np.float32)
