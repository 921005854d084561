"""The full-size networks as one frame uses them: condition -> guidance -> latents -> image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.backends.cuda_graph import Record, Recorded
from engine.diffusion.samplers import SamplerSettings, sample
from engine.errors import ConfigError
from engine.face.landmarks import Affine, apply
from engine.face.placement import landmarks_68, placement
from engine.nets.attention import KeyValues
from engine.nets.conditions import Conditions, Guidance
from engine.nets.portraittalk import Caches, PortraitTalkModel
from engine.nets.sd_codec import to_bytes
from engine.nets.text_tokens import Tokenise
from engine.render.base import FrameCondition
from engine.render.head_square import close_lids
from engine.types import RgbImage

F32 = NDArray[np.float32]
BASE_PROMPT = "portrait of a person, looking at the camera"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling(SamplerSettings):
    """How a frame is sampled."""

    num_inference_steps: int = 4
    trailing: bool = True  # DDIM's steps counted from the last one back, as students are trained
    tiny_codec: bool = True  # what decodes; and what encodes, unless `tiny_latents` says
    tiny_latents: bool | None = None
    long_video: Literal["cache", "fusion", "neither"] = "cache"  # see `DiffusionSettings`
    window: int = 16  # of latent fusion, in frames
    overlap: int = 4

    def __post_init__(self) -> None:
        if self.sampler == "flow":
            raise ConfigError(
                "sampler='flow' takes a network's velocity, and this one gives noise; use ddim, euler, "
                "dpm++, lcm or tcd"
            )


@dataclass(frozen=True, slots=True)
class DiffusionFace:
    """One enrolled person. Read-only."""

    size: tuple[int, int]  # of the frames
    to_unit: Affine  # crop units -> [0, 1] of the frame
    identity: Tensor | None  # (1, N, D) tokens
    nobody: Tensor | None  # (1, N, D) tokens of no person, for guidance
    reference: KeyValues
    concat: Tensor | None  # (1, 8, h, w) masked and whole latents, with DiffTalk's conditioning
    landmarks: F32  # (478, 2) of the portrait, in [0, 1] of the frame
    placed: F32  # (8,) where the portrait's own head is
    rgb: RgbImage  # (S, S, 3) the square


@dataclass(frozen=True, slots=True)
class Aim:
    """What a condition asks of one frame, in units of the frame."""

    landmarks: F32  # (478, 2), eyes as they are to be
    points: F32  # (68, 3)
    placed: F32  # (8,)
    text: Tensor  # (1, 77, D)
    speech: F32 | None  # (16, W)


class FrameModel:
    """The denoiser of one frame with its conditions and without, as samplers call it.

    Attributes:
        keys: keys and values that the last evaluation with conditions computed; None before one.
    """

    def __init__(
        self,
        step: Callable[..., tuple[Tensor, Caches]],
        told: Conditions,
        untold: Conditions,
        guide: Guidance,
        before: Caches | None,
    ) -> None:
        self._step, self._told, self._untold = step, told, untold
        self._guide, self._before = guide, before
        self._dtype = told.text.dtype
        self.keys: Caches | None = None

    def conditional(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Latents (1, 4, h, w), time (1,) -> noise (1, 4, h, w)."""
        noise, self.keys = self._evaluate(z_t, t, self._told)
        return noise

    def unconditional(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Noise (1, 4, h, w) for latents (1, 4, h, w) at time (1,), with no prompt and no identity."""
        return self._evaluate(z_t, t, self._untold)[0]

    def _evaluate(self, z_t: Tensor, t: Tensor, told: Conditions) -> tuple[Tensor, Caches]:
        noise, keys = self._step(z_t.to(self._dtype), t, told, self._guide, self._before)
        return noise.float(), keys


class FrameNetworks:
    """A `PortraitTalkModel` on its device, called with what one frame shows.

    Args:
        depth: (478,) of a face seen from the front (`FaceBasis.depth`).
        record: records the denoising step, which is then replayed (`cuda_graph` on a GPU).

    Attributes:
        plain: text (1, 77, D) of a frame without a prompt.
    """

    def __init__(
        self,
        model: PortraitTalkModel,
        sampling: Sampling,
        *,
        tokenise: Tokenise,
        depth: F32,
        record: Record | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.sampling = sampling
        self._step = self.model if record is None else Recorded(self.model, record)
        self._tokenise, self._depth = tokenise, depth
        weight = next(model.unet.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.plain, self._nothing = (self.read(text) for text in (BASE_PROMPT, ""))

    @property
    def frame_side(self) -> int:
        """Side in pixels of the frames, which are square."""
        doubled = self.model.codec.enlarge is not None
        return self.model.config.picture_side * (2 if doubled else 1)

    @torch.inference_mode()
    def read(self, text: str) -> Tensor:
        """A prompt as the text encoder reads it (1, 77, D)."""
        return self.model.read(self._tokenise([text]).to(self.device)).to(self.dtype)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] -> latents (B, 4, h, w)."""
        how = self.sampling
        tiny = how.tiny_codec if how.tiny_latents is None else how.tiny_latents
        return self.model.codec.encode(images, tiny=tiny)

    def decode(self, latents: Tensor) -> RgbImage:
        """Latents (1, 4, h, w) -> the frame (S, S, 3)."""
        images = self.model.codec.decode(latents.to(self.dtype), tiny=self.sampling.tiny_codec)
        rgb: RgbImage = to_bytes(images)[0].cpu().numpy()
        return rgb

    def aim(self, face: DiffusionFace, condition: FrameCondition) -> Aim:
        """What `condition` asks of a frame of `face`."""
        landmarks = apply(face.to_unit, close_lids(condition.target, condition.blink))
        yaw, pitch = (float(angle) for angle in condition.placement[:2])
        points = landmarks_68(landmarks, yaw, pitch, self._depth)
        text = self.plain if condition.words is None else condition.words.text
        return Aim(landmarks, points, placement(landmarks, yaw, pitch), text, condition.speech)

    def rest(self, face: DiffusionFace, text: Tensor, speech: F32 | None) -> Aim:
        """The portrait as it is, in the words `text` (1, 77, D)."""
        points = landmarks_68(face.landmarks, 0.0, 0.0, self._depth)
        return Aim(face.landmarks, points, face.placed, text, speech)

    def guide(self, face: DiffusionFace, aim: Aim, before: F32) -> Guidance:
        """Guidance of one frame, the head having been at `before` (8,).

        Landmarks are drawn by the pixel, so in full precision.
        """
        speech = None if aim.speech is None else self.tensor(aim.speech)[None]
        guide = self.model.guidance(
            self.row(aim.landmarks),
            self.row(aim.points),
            self.row(before),
            concat=face.concat,
            speech=speech,
        )
        landmarks, placed = (
            None if values is None else values.to(self.dtype)
            for values in (guide.landmarks, guide.placement)
        )
        return replace(guide, landmarks=landmarks, placement=placed)

    def frame_model(
        self, face: DiffusionFace, guide: Guidance, text: Tensor, before: Caches | None
    ) -> FrameModel:
        """The denoiser of one frame in the words `text` (1, 77, D).

        Args:
            before: keys and values of the frame before; None where it is not looked at.
        """
        told = Conditions(text, face.identity, face.reference)
        untold = replace(told, text=self._nothing, identity=face.nobody)
        return FrameModel(self._step, told, untold, guide, before)

    def sample(self, model: FrameModel, condition: FrameCondition) -> Tensor:
        """Latents (1, 4, h, w) of one frame, from the noise of its stream."""
        seed = condition.noise.seed * 1_000_003 + condition.index
        return sample(
            model.conditional,
            condition.noise.start,
            self.sampling,
            unconditional=model.unconditional,
            generator=torch.Generator().manual_seed(seed),
        )

    def row(self, values: F32) -> Tensor:
        """An array as a batch of one on the device, in full precision."""
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None].to(self.device)

    def tensor(self, values: NDArray[np.generic]) -> Tensor:
        """An array on the device in the networks' precision."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.dtype)
