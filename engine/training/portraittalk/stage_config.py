"""The configuration of a training run, read from one TOML file.

    run = "runs/mine"         # checkpoints, samples and curves: one folder a stage below it
    models = "models"         # public checkpoints, as `portraittalk models` lists them
    [data]                    # DataSettings
    [model]                   # ModelSettings
    [train]                   # StageSettings for every stage
    [identity]                # what differs in that stage; so for codec, animate, joint
    [distill]                 # DistillSettings; [train] counts here as well

Unknown keys are refused. Paths are taken from the file's own folder.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from engine.audio.speech_encoder import WIDTH
from engine.checks import read_toml
from engine.config import Adapter, Injection, MotionModules, from_mapping
from engine.errors import ConfigError
from engine.loaders.run_card import Stage
from engine.nets.sd15_config import ADAPTER_PROJECTION, CodecSizes, Projection, Sd15Config

T = TypeVar("T")
FACE_EMBEDDING = 512  # numbers, where no clip says how many
STAGES: tuple[Stage, ...] = ("codec", "identity", "animate", "joint")


def earlier(stage: str) -> tuple[Stage, ...]:
    """The stages whose weights `stage` starts from."""
    return STAGES if stage == "distill" else STAGES[: STAGES.index(stage)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Which prepared clips, and how samples are drawn from them."""

    clips: Path  # what `portraittalk prepare` wrote
    size: int = 512  # pixels a side; frames prepared at another size are scaled
    references: int = (
        1  # portraits a sample at most: 1 to so many, the same number in all of a batch
    )
    reference_gap: int = 60  # frames between a reference and its target where the clip has them

    def __post_init__(self) -> None:
        if self.size % 8 or self.size < 32:
            raise ConfigError(f"size={self.size}: wanted a multiple of 8, 32 or more")
        if self.references < 1:
            raise ConfigError("references: a sample needs at least one portrait")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which system is trained: real sizes or small ones, and the paper's ablations."""

    size: Literal["full", "small"] = "full"
    width: int = 0  # small size: channels of every level, codec half; 0: 16, then 32; codec 16
    latents: Literal["vae", "tiny"] = "vae"  # whose encoder makes the latents
    output_scale: Literal[1, 2] = 1  # of the frames' side over `size` of [data]
    attention: Literal["decoupled", "unified"] = "decoupled"
    face_encoder: bool = True
    references: Literal["all", "first"] = "all"
    placement: bool = True
    temporal: bool = True
    reference_writer: Literal["self", "reference_net"] = "self"
    guider: Literal["control_net", "pose_guider"] = "control_net"
    injection: Injection = "residual"
    projection: Projection = "faceid"
    face_embedding: int = 0  # numbers of a face embedding; 0: as the clips were prepared
    conditioning: Literal["portraittalk", "difftalk"] = "portraittalk"
    speech_features: int = WIDTH  # of the prepared speech, for "difftalk"
    prediction: Literal["noise", "velocity"] = "noise"  # Stable Diffusion 1.5 gives noise
    history: int = 1  # frames before this one that the attentions see
    motion_modules: MotionModules = "none"  # AnimateDiff's, in IdentityNet
    motion_window: int = 4  # frames before this one that they see
    adapter: Adapter = "none"  # full size: to begin with
    seed: int = 0  # of random weights

    def __post_init__(self) -> None:
        if self.width and (self.size == "full" or self.width < 0):
            raise ConfigError(f'width={self.width}: wanted more than 0, and size = "small" with it')
        if self.prediction == "velocity" and self.size == "full":
            raise ConfigError('prediction = "velocity" goes with size = "small"')
        wanted = ADAPTER_PROJECTION.get(self.adapter, self.projection)
        if self.projection != wanted:
            raise ConfigError(f'adapter = "{self.adapter}" goes with projection = "{wanted}"')
        self.config()

    def config(self, side: int = 512) -> Sd15Config:
        """The networks' own configuration, for images of `side` pixels."""
        names = {f.name for f in dataclasses.fields(Sd15Config)}
        mine = {n: v for n, v in dataclasses.asdict(self).items() if n in names}
        mine["face_embedding"] = self.face_embedding or FACE_EMBEDDING
        base = Sd15Config.full() if self.size == "full" else Sd15Config.small()
        unet = dataclasses.replace(base.unet, sample_size=side // 8)
        codec = base.codec
        if self.width:
            levels = (self.width,) * len(unet.block_out_channels)
            unet = dataclasses.replace(unet, block_out_channels=levels)
            codec = self._wider(codec)
        mine["codec"] = dataclasses.replace(codec, output_scale=self.output_scale)
        return dataclasses.replace(base, unet=unet, **mine)

    def _wider(self, codec: CodecSizes) -> CodecSizes:
        """The tiny autoencoder with half of `width` in every level, where that is more."""
        levels = tuple(max(n, self.width // 2) for n in codec.tiny_channels)
        return dataclasses.replace(codec, tiny_channels=levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """One stage. The defaults are the paper's where it names a number."""

    steps: int = 10_000
    batch: int = 32  # over all processes and accumulated steps
    accumulate: int = 1
    rate: float = 5e-6
    decay: Literal["none", "cosine"] = "none"  # of the rate, to a tenth at the last step
    weight_decay: float = 1e-2
    warm_up: int = 200
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999
    weights: Literal["new", "all"] = "all"  # new: only what public checkpoints do not hold
    text_dropout: float = 0.05  # as IP-Adapter: text alone, identity alone, both
    identity_dropout: float = 0.05
    both_dropout: float = 0.05
    snr_gamma: float = 0.0  # 0: plain epsilon-MSE; else min-SNR weights (arXiv 2303.09556)
    shift: float = 1.0  # over 1: timesteps lean to high noise, as `diffusion_loss.shifted` says
    error: Literal["noise", "latents"] = "noise"  # whose MSE; latents: weights 1 / snr
    masked: float = 0.5  # identity: share of samples with a masked frame
    holes: float = 0.3  # of its 8 x 8 squares hidden, where holes are drawn
    masked_target: Literal["restore", "printed"] = "restore"
    cold: float = 0.1  # joint: steps without a previous frame
    history_noise: float = 0.1  # joint: spread of noise on the history's keys, at most
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False
    save_every: int = 500
    sample_every: int = 500
    sample_steps: int = 25
    samples: int = 8  # fixed ones, to evaluate; the first eight to look at
    seed: int = 0

    def __post_init__(self) -> None:
        _check_shares(self, "text_dropout", "identity_dropout", "both_dropout", "masked", "cold")
        if self.text_dropout + self.identity_dropout + self.both_dropout > 1:
            raise ConfigError("text_dropout + identity_dropout + both_dropout is over 1")
        if self.snr_gamma > 0 and self.error == "latents":
            raise ConfigError('snr_gamma weighs errors of noise: not with error = "latents"')
        _check_positive(
            self,
            "steps",
            "batch",
            "accumulate",
            "rate",
            "shift",
            "save_every",
            "sample_every",
            "samples",
        )
        if self.batch % self.accumulate:
            raise ConfigError(f"batch={self.batch} is no multiple of accumulate={self.accumulate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSettings(StageSettings):
    """A few-step student, learnt by rolling out through the frame cache.

    The total is l1 + perceptual + mouth * (l1 + perceptual of the mouth) + adversarial (generator)
    + distribution_matching + score_adversarial; `perceptual` says what measures likeness, and
    `begin_with` names the few-step LoRA that a student at full size starts from.
    """

    student_steps: int = 4  # a roll-out takes 1 to this many, at random
    begin_with: Literal["", "lcm-lora", "tcd-lora", "hyper-sd-1step", "hyper-sd-2steps"] = ""
    frames: int = 6  # of a roll-out; the gradient goes through its last frame alone
    perceptual: Literal["lpips", "random", "none"] = "lpips"  # random: untrained features
    perceptual_weight: float = 0.7
    mouth: float = 0.6
    adversarial: float = 0.08
    adversarial_from: int = 1000
    judge_rate: float = 2e-4
    distribution_matching: float = 0.0  # weight; 0 builds no networks for it
    teacher_guidance: float = 1.0  # of the real score; it needs a teacher trained with dropout
    score_adversarial: float = 0.0  # weight of the judge on the fake score's features
    fake_rate: float = 1e-5
    fake_updates: int = 5  # of the fake score for one of the student

    def __post_init__(self) -> None:
        StageSettings.__post_init__(self)
        _check_positive(self, "student_steps", "judge_rate", "fake_rate", "fake_updates")
        if self.frames < 2:
            raise ConfigError(f"frames={self.frames}: a roll-out needs two frames or more")
        if not 0 <= self.teacher_guidance <= 30:
            raise ConfigError(
                f"teacher_guidance={self.teacher_guidance}: wanted 0 to 30; 0 and 1 are none"
            )
        if self.begin_with and self.weights != "all":
            raise ConfigError(
                f'begin_with={self.begin_with!r} changes weights of Stable Diffusion: weights = "all" '
                "goes with it"
            )
        if self.score_adversarial and not self.distribution_matching:
            raise ConfigError(
                "score_adversarial judges features of the fake score: distribution_matching goes "
                "with it"
            )


def _check_shares(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ConfigError(f"{name}={getattr(settings, name)}: wanted a share from 0 to 1")


def _check_positive(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) <= 0:
            raise ConfigError(f"{name}={getattr(settings, name)}: wanted more than 0")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One TOML file, read."""

    run: Path
    models: Path
    data: DataSettings
    model: ModelSettings
    tables: dict[str, dict[str, Any]]

    def stage(self, stage: Stage) -> StageSettings:
        """Settings of a training stage."""
        return _read(StageSettings, self.tables["train"] | self.tables[stage])

    def distill(self) -> DistillSettings:
        """Settings of distillation."""
        return _read(DistillSettings, self.tables["train"] | self.tables["distill"])

    def folder(self, stage: str) -> Path:
        """Where a stage keeps its checkpoint, samples and curves."""
        return self.run / stage


def _read(cls: type[T], table: dict[str, Any]) -> T:
    """`from_mapping`, once every value is known to be of its field's type."""
    for name, wanted in get_type_hints(cls).items():
        if name not in table:
            continue
        value = table[name]
        if get_origin(wanted) is Literal:
            if value not in get_args(wanted):
                words = ", ".join(map(repr, get_args(wanted)))
                raise ConfigError(f"{name}={value!r}: wanted one of {words}")
            continue
        kinds = (int, float) if wanted is float else (wanted,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and wanted is not bool):
            raise ConfigError(f"{name}={value!r}: wanted {wanted.__name__}")
    return from_mapping(cls, table)


def load_run_config(path: Path) -> RunConfig:
    """Read a TOML file and check every table of it.

    Raises:
        ConfigError: no such file, not TOML, unknown keys, or values out of range.
    """
    return run_config(read_toml(path), path.parent)


def run_config(raw: dict[str, Any], home: Path) -> RunConfig:
    """Build the configuration of a run from TOML's `raw`; paths start at `home`."""
    tables = {n: dict(raw.pop(n, {})) for n in ("data", "model", "train", *STAGES, "distill")}
    run, models = raw.pop("run", None), raw.pop("models", "models")
    if raw or not isinstance(run, str) or not isinstance(models, str):
        unknown = ", ".join(map(repr, raw)) or "no `run`"
        raise ConfigError(
            f'unexpected {unknown}: wanted run = "FOLDER" and the tables {", ".join(tables)}'
        )
    if "clips" not in tables["data"]:
        raise ConfigError('[data] needs clips = "FOLDER", what `portraittalk prepare` wrote')
    data = _read(DataSettings, tables["data"] | {"clips": home / tables["data"]["clips"]})
    model = _read(ModelSettings, tables["model"])
    config = RunConfig(home / run, home / models, data, model, tables)
    for stage in STAGES:
        config.stage(stage)
    if config.distill().begin_with and model.size == "small":
        raise ConfigError('begin_with goes with size = "full": it is for Stable Diffusion 1.5')
    config.model.config(data.size)
    return config
