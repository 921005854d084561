"""What makes the videos that are measured, by name; and the three that tell a measure's floor and ceiling.

| name | what |
| --- | --- |
| offline | the engine as it runs live, one step a painted frame, every frame painted |
| full | the same networks with 25 steps |
| steps4, no-cache, no-animatenet, warp | ablations of `offline` |
| live | as delivered; made by `server.evaluation` |
| re-encode, still, wrong-sound | the real clip as H.264; the portrait with the sound; the re-encoded pictures with other sound |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from engine.avatar import AvatarEngine
from engine.backends import GraphSpec, load_backend
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.evaluation.clips import Prepared, rolled
from engine.evaluation.given_pose import PoseGivenEngine
from engine.evaluation.lossless import write_lossless
from engine.offline.video_file import write_video
from engine.render.tiny_ablated import ABLATIONS, AblatedRenderer
from engine.training.data.talking_video import frames_at
from engine.types import Pcm, RgbImage, VideoFrame

Protocol = Literal["pose-given", "free"]
PROTOCOLS: tuple[Protocol, ...] = ("pose-given", "free")
FULL_STEPS = 25
STEPS = {"offline": 1, "steps4": 4, "full": FULL_STEPS}
TITLES = {
    "live": "live, as delivered",
    "offline": "offline, 1 step",
    "full": f"offline, {FULL_STEPS} steps",
    "steps4": "offline, 4 steps",
    "no-cache": "without the frame cache",
    "no-animatenet": "without AnimateNet",
    "warp": "warp alone",
    "re-encode": "real, re-encoded",
    "still": "still portrait",
    "wrong-sound": "real, wrong sound",
}
# Seconds of two cores for a second of video, for the time that is left.
MAKING = {"live": 4.0, "offline": 1.0, "steps4": 2.0, "full": 8.0, "videos": 0.0}
REFERENCES = ("re-encode", "still", "wrong-sound")
ABLATED = ("warp", "no-animatenet", "no-cache", "offline", "steps4", "full")
HERE = (*STEPS, *ABLATIONS)


def check_engines(names: tuple[str, ...]) -> None:
    """Raises `ConfigError` at a name that is none of these."""
    known = ("live", *HERE)
    if not names:
        raise ConfigError(f"name an engine: {', '.join(known)}")
    for name in names:
        if name not in known:
            raise ConfigError(f"engine {name!r} is not known; there are {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Made:
    """What making a video had to say."""

    notes: tuple[str, ...] = ()
    figures: tuple[tuple[str, float], ...] = ()  # of how it came: latency and the like


def load(name: str, protocol: Protocol) -> AvatarEngine:
    """Load an engine of this process by its name."""
    config = EngineConfig(num_inference_steps=STEPS.get(name, 1), paint_every=1, max_side=1080)
    kind = PoseGivenEngine if protocol == "pose-given" else AvatarEngine
    if name not in ABLATIONS:
        return kind.load(config)
    runtime = load_backend(config.backend, threads=1, rows=1)

    def graph(spec: GraphSpec) -> object:
        return runtime.load(spec, config.weights / f"{spec.name}.onnx")

    renderer = AblatedRenderer(name, graph, 1, runtime.put)  # type: ignore[arg-type]
    return kind.load(config, renderer=renderer)


def draw(name: str, clip: Prepared, protocol: Protocol, out: Path) -> Made:
    """Make a video of a clip with an engine of this process."""
    engine = load(name, protocol)
    notes: list[str] = []
    if isinstance(engine, PoseGivenEngine):
        if clip.real is None:
            raise ConfigError(f"{clip.name}: pose-given needs a film of the person")
        track = engine.follow(frames_at(clip.real))
        if track.lost:
            notes.append(f"no face in {track.lost} frames of the film: the frame before is driven")
    identity = engine.enroll(clip.portrait)
    notes += engine.report(identity).notices
    state = engine.start(identity)

    def frames() -> Iterator[RgbImage]:
        hop = engine.config.stream.hop_samples * engine.config.stream.fps
        pcm = marked(clip.pcm)
        for at in range(0, len(pcm), hop):
            yield from (frame.rgb for frame in engine.step(state, pcm[at : at + hop]))
        yield from (frame.rgb for frame in engine.flush(state))

    write_lossless(frames(), clip.pcm, out)
    return Made(tuple(notes))


def marked(pcm: Pcm) -> Pcm:
    """Sound (N,) whose first sample is not 0, by less than is heard: where a given pose begins."""
    out = pcm.copy()
    out[0] = out[0] or 1 / 32768
    return out


def reference(name: str, clip: Prepared, others: list[Prepared], out: Path) -> Made | None:
    """Make one of `REFERENCES`; None where the clip has no film to make it of."""
    if name == "still":
        count = -(-len(clip.pcm) // 640)
        write_lossless((clip.portrait for _ in range(count)), clip.pcm, out)
        return Made()
    if clip.real is None:
        return None
    sound = clip.pcm
    notes: tuple[str, ...] = ()
    if name == "wrong-sound":
        sound, note = wrong_sound(clip, others)
        notes = (note,)
    coded = out.with_suffix(".mp4")
    size = clip.portrait.shape[0] // 2 * 2, clip.portrait.shape[1] // 2 * 2
    pictures = (
        VideoFrame(i, np.ascontiguousarray(rgb[: size[0], : size[1]]))
        for i, rgb in enumerate(frames_at(clip.real))
    )
    try:
        write_video(pictures, size, clip.sound, coded, alpha=False)
        write_lossless(frames_at(coded), sound, out)
    finally:
        coded.unlink(missing_ok=True)
    return Made(notes)


def wrong_sound(clip: Prepared, others: list[Prepared]) -> tuple[Pcm, str]:
    """Sound (N,) that is not the clip's, and whose it is."""
    there = [other for other in others if other.name != clip.name]
    if not there:
        return rolled(clip.pcm), "wrong sound: the clip's own, moved by half of its length"
    names = [other.name for other in others]
    other = others[(names.index(clip.name) + 1) % len(others)]
    repeats = -(-len(clip.pcm) // len(other.pcm))
    return np.tile(other.pcm, repeats)[: len(clip.pcm)], f"wrong sound: that of {other.name}"
