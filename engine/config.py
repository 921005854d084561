"""Settings of the engine as frozen data; a profile is a value of `EngineConfig`, not a code path."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.checks import check_words
from engine.errors import ConfigError

T = TypeVar("T")
WEIGHTS = Path(__file__).parent / "weights"
MODELS_DIR = Path("models")  # of public checkpoints
LARGEST_SIDE = 2160  # pixels of the longer side of a frame
MAX_STRENGTH = 4.0  # of a condition of a full-size frame
MAX_WINDOW = 256  # frames of a window of latent fusion

# The time base that every network is trained on; other modules take their lengths from here.
SAMPLE_RATE_HZ = 16_000
FPS = 25
HOP_SAMPLES = SAMPLE_RATE_HZ // FPS  # of a video frame
FEATURES_PER_FRAME = 2  # feature frames of a speech encoder in a video frame
LOOKAHEAD_FRAMES = 2  # frames of sound needed before a frame's mouth is decided

Profile = Literal["tiny", "sd15"]
# what runs embedded graphs
BackendName = Literal["openvino", "onnxruntime", "cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"]
CPU_BACKENDS = ("openvino", "onnxruntime")
Use = Literal["commercial", "research"]  # some checkpoints may not be used commercially
SpeechEncoderName = Literal["tiny", "hubert-base", "hubert-large"]
SPEECH_HOPS_MS = (40, 80, 120, 160)  # in which a HuBERT may hear
FaceEncoderName = Literal[
    "insightface", "antelopev2", "auraface", "sface", "tiny", "clip", "insightface-clip"
]
SamplerName = Literal["ddim", "euler", "dpm++", "lcm", "tcd"]  # that predict noise, as sd15 does
Adapter = Literal["faceid", "faceid-portrait", "faceid-plus-v2", "none"]
FewStep = Literal["lcm-lora", "tcd-lora", "hyper-sd-1step", "hyper-sd-2steps"]
Conditioning = Literal["portraittalk", "difftalk"]  # what the full-size nets are told of a frame
Injection = Literal["residual", "cross_attention"]  # how AnimateNet's features reach IdentityNet
FrameStart = Literal["noise", "last"]  # what the sampling of a frame begins from
PlacementOf = Literal["commanded", "measured"]  # what the next frame is told of this one's head
Codec = Literal["tiny", "full"]
MotionModules = Literal["none", "v2", "v3"]  # AnimateDiff's
LongVideo = Literal["cache", "fusion", "neither"]  # what ties the frames of a video together
Device = Literal["auto", "cpu", "cuda"]
# how the full-size nets are run on a GPU
Compile = Literal["none", "cudagraphs", "tensorrt", "tensorrt-rtx"]
RandomWeights = Literal["small", "full"]  # sizes of networks with random weights


def check_models_dir(folder: Path) -> None:
    """Refuse what cannot be the folder of checkpoints; the default one need not be there.

    Raises:
        ConfigError: it is a file, or another folder than the default one that does not exist.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"models_dir={str(folder)!r} is a file; name a folder")
    if folder != MODELS_DIR and not folder.exists():
        raise ConfigError(f"models_dir={str(folder)!r} does not exist; name a folder that does")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Time base of the stream, as the networks are trained on it; other values are refused."""

    sample_rate_hz: int = SAMPLE_RATE_HZ
    fps: int = FPS
    # those of the motion network; a speech encoder that works in chunks adds to them
    lookahead_frames: int = LOOKAHEAD_FRAMES

    def __post_init__(self) -> None:
        for field, only in (("sample_rate_hz", SAMPLE_RATE_HZ), ("fps", FPS)):
            if getattr(self, field) != only:
                raise ConfigError(
                    f"{field}={getattr(self, field)}: the networks are trained on {only} alone"
                )
        if self.lookahead_frames < LOOKAHEAD_FRAMES:
            raise ConfigError(
                f"lookahead_frames={self.lookahead_frames}: the motion network hears "
                f"{LOOKAHEAD_FRAMES} frames ahead"
            )

    @property
    def hop_samples(self) -> int:
        """PCM samples per video frame."""
        return self.sample_rate_hz // self.fps

    @property
    def frame_ms(self) -> float:
        """Duration of one video frame in milliseconds."""
        return 1000 / self.fps


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strengths:
    """How much each condition of a full-size frame counts: 1 as it was trained, 0 as if absent.

    `text` leads from the frame without a prompt to that of the prompt, the others weigh what the
    person's tokens, the portraits' keys and values, and AnimateNet add.
    """

    identity: float = 1.0
    reference: float = 1.0
    control: float = 1.0
    text: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not 0 <= (value := getattr(self, field.name)) <= MAX_STRENGTH:
                raise ConfigError(
                    f"{field.name}_scale={value} is out of range; 0 to {MAX_STRENGTH:g}, 1 is as trained"
                )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionSettings:
    """What the sd15 profile loads, and how it samples; see `portraittalk models` for the names.

    `random_weights`: build networks of that size with random weights instead of loading any; the
    frames are noise, the timing and the workings are real.
    `long_video`: what ties frames together. cache: each sees the one before. fusion: all are sampled
    together in overlapping windows (progressive latent fusion), offline alone. neither: nothing.
    `compile`: cudagraphs records the denoising step on the GPU and replays it; tensorrt and tensorrt-rtx
    do so until the engine that `portraittalk export` builds is there, and then run that.
    """

    models_dir: Path = MODELS_DIR
    trained: tuple[Path, ...] = ()  # a run of `portraittalk train`: its folder, or a stage's
    use: Use = "research"
    sampler: SamplerName = "lcm"
    guidance_scale: float = 1.0
    identity_scale: float = 1.0  # these four: see `Strengths`
    reference_scale: float = 1.0
    control_scale: float = 1.0
    text_scale: float = 1.0
    few_step: FewStep | Literal[""] = ""  # a LoRA for few steps; by itself that of the sampler
    sd15_file: Path | None = None  # Stable Diffusion 1.5 in one file, in place of its folder
    structure_scale: float = 1.0  # of the face's picture with faceid-plus-v2
    adapter: Adapter = "faceid"
    face_encoder: FaceEncoderName = "insightface"
    conditioning: Conditioning = "portraittalk"  # this and the next: as `trained` was
    injection: Injection = "residual"
    codec: Codec = "tiny"
    output_scale: Literal[1, 2] = 1  # of the frames' side over what the networks draw
    history: int = 1  # frames before this one in the cache
    motion_modules: MotionModules = "none"
    long_video: LongVideo = "cache"
    window: int = 16  # frames of a window of latent fusion, the portrait before them among them
    overlap: int = 4  # of two windows one after the other
    placement: PlacementOf = "commanded"
    start: FrameStart = "noise"
    start_strength: float = 0.5  # of "last": share of the steps that are gone from the frame before
    device: Device = "auto"
    compile: Compile = "none"
    random_weights: RandomWeights | Literal[""] = ""

    def __post_init__(self) -> None:
        if not 0 <= self.guidance_scale <= 30:
            raise ConfigError(
                f"guidance_scale={self.guidance_scale} is out of range; 0 to 30, 0 and 1 are none"
            )
        check_models_dir(self.models_dir)
        if not 3 <= self.window <= MAX_WINDOW or not 0 <= self.overlap <= self.window - 2:
            raise ConfigError(
                f"window={self.window}, overlap={self.overlap}: a window is the portrait and 2 to "
                f"{MAX_WINDOW - 1} frames, and two windows may not share all of theirs"
            )
        check_words(self)
        _ = self.strengths  # out of range they are refused
        if not 0 <= self.structure_scale <= MAX_STRENGTH:
            raise ConfigError(f"structure_scale={self.structure_scale} is out of range; 0 to 4")

    @property
    def strengths(self) -> Strengths:
        """What each condition counts in a stream that says nothing else."""
        return Strengths(
            identity=self.identity_scale,
            reference=self.reference_scale,
            control=self.control_scale,
            text=self.text_scale,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything the engine needs to know before it loads; a profile is a value of this.

    Speech and motion are the same in both profiles; `diffusion` says what sd15 draws with, and where
    the files of a HuBERT are.
    """

    profile: Profile = "tiny"
    weights: Path = WEIGHTS / "tiny"
    backend: BackendName = "openvino"
    threads: int = 0  # CPU threads of one graph; 0: one or two, as is measured at start
    # threads that step streams side by side, each with graphs of its own; 0: as is measured at start
    engine_threads: int = 1
    batch: int = 1  # streams that may be stepped together; see `AvatarEngine.step_many`
    num_inference_steps: int = 1  # denoising steps per painted frame
    # frames; those between carry the last painted crop, unless lips open. 0: as the machine
    # allows, every one on a GPU or where the CPU multiplies in bf16, else every third
    paint_every: int = 0
    max_side: int = 512  # longer portraits are scaled down to this many pixels, live
    calm: bool = False  # the head only sways and nods a little while it speaks
    speech: SpeechEncoderName = "tiny"  # whose features move the mouth
    speech_hop_ms: int = 160  # of a HuBERT: a shorter one looks less far ahead and works more
    stream: StreamConfig = StreamConfig()
    diffusion: DiffusionSettings = DiffusionSettings()

    @classmethod
    def sd15(cls, *, live: bool, **changes: Any) -> EngineConfig:
        """The full-size profile: 4 steps of LCM live, 30 of DDIM with guidance offline."""
        how = {} if live else {"sampler": "ddim", "guidance_scale": 3.5, "codec": "full"}
        defaults: dict[str, Any] = {
            "num_inference_steps": 4 if live else 30,
            "paint_every": 1,
            "max_side": 1024,
            "diffusion": DiffusionSettings(**how),  # type: ignore[arg-type]
        }
        made = cls(profile="sd15", **(defaults | changes))
        if live and made.diffusion.long_video == "fusion":
            raise ConfigError(
                "long_video='fusion' samples all frames of a sound together; live there is only "
                "'cache' or 'neither'"
            )
        return made

    @property
    def steps_side_by_side(self) -> bool:
        """Whether several threads may step streams: what is on a GPU, or in torch, belongs to one."""
        return self.profile == "tiny" and self.backend in CPU_BACKENDS

    def __post_init__(self) -> None:
        check_words(self)
        if not 1 <= self.num_inference_steps <= 50:
            raise ConfigError(
                f"num_inference_steps={self.num_inference_steps} is out of range; 1 to 50 denoising "
                "steps a frame"
            )
        if not 0 <= self.paint_every <= 5:
            raise ConfigError(f"paint_every={self.paint_every} is out of range; 0 to 5 frames")
        if not 128 <= self.max_side <= LARGEST_SIDE:
            raise ConfigError(
                f"max_side={self.max_side} is out of range; 128 to {LARGEST_SIDE} pixels"
            )
        if not 1 <= self.batch <= 64:
            raise ConfigError(f"batch={self.batch} is out of range; 1 to 64 streams")
        if not 0 <= self.threads <= 1024:
            raise ConfigError(
                f"threads={self.threads} is out of range; 1 to 1024 threads a graph, 0: as measured"
            )
        if not 0 <= self.engine_threads <= 64:
            raise ConfigError(
                f"engine_threads={self.engine_threads} is out of range; 1 to 64, 0: as measured"
            )
        if self.engine_threads > 1 and not self.steps_side_by_side:
            raise ConfigError(
                f"engine_threads={self.engine_threads}: only the tiny profile steps streams side by side, "
                f"and only on {' and '.join(CPU_BACKENDS)}"
            )
        if self.speech_hop_ms not in SPEECH_HOPS_MS:
            raise ConfigError(
                f"speech_hop_ms={self.speech_hop_ms} is no whole number of video frames that a HuBERT "
                f"may hear in; one of {', '.join(map(str, SPEECH_HOPS_MS))}"
            )
        if self.speech == "tiny" and self.stream.lookahead_frames != LOOKAHEAD_FRAMES:
            raise ConfigError(
                f"lookahead_frames={self.stream.lookahead_frames}: the bundled speech encoder adds "
                f"nothing to the {LOOKAHEAD_FRAMES} of the motion network"
            )


def from_mapping(cls: type[T], raw: Mapping[str, Any]) -> T:
    """Build dataclass `cls` from `raw`, refusing keys it does not have.

    Raises:
        ConfigError: an unknown key, with the nearest known one.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown key {key!r} in {cls.__name__}{hint}")
    return cls(**raw)
