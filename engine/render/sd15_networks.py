"""The full-size networks as one frame uses them: condition -> guidance -> latents -> image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.backends import Graph
from engine.backends.cuda_graph import Record, Recorded
from engine.config import Strengths
from engine.diffusion.samplers import Denoising
from engine.face.landmarks import Affine, apply
from engine.face.placement import landmarks_68, placement
from engine.nets.attention import KeyValues
from engine.nets.conditions import Conditions, Guidance
from engine.nets.geometry import follow
from engine.nets.portraittalk import Caches, PortraitTalkModel, hide_lower_half
from engine.nets.sd_codec import to_bytes
from engine.nets.text_tokens import Tokenise
from engine.render.base import FrameCondition
from engine.render.head_square import close_lids
from engine.render.sd15_sampling import Sampling, noise_between
from engine.render.sd15_step import GraphStep, Step
from engine.render.together import Work
from engine.types import RgbImage

F32 = NDArray[np.float32]
BASE_PROMPT = "portrait of a person, looking at the camera"


def to_tensor(rgb: RgbImage) -> Tensor:
    """(S, S, 3) uint8 -> (3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 127.5 - 1


@dataclass(frozen=True, slots=True)
class DiffusionFace:
    """One enrolled person. Read-only."""

    size: tuple[int, int]  # of the frames
    to_unit: Affine  # crop units -> [0, 1] of the frame
    identity: Tensor | None  # (1, N, D) tokens
    nobody: Tensor | None  # (1, N, D) tokens of no person, for guidance
    reference: KeyValues
    weight: Tensor | None  # (1, R) of each portrait in `reference`; None: of one person
    latents: Tensor  # (1, 4, h, w) of the portrait
    landmarks: F32  # (478, 2) of the portrait, in [0, 1] of the frame
    placed: F32  # (8,) where the portrait's own head is
    rgb: RgbImage  # (S, S, 3) the square
    turn: F32 | None = None  # (2,) yaw and pitch read in it, where frames are measured
    half: None = None  # a network's frames have one size


@dataclass(frozen=True, slots=True)
class Aim:
    """What a condition asks of one frame, in units of the frame."""

    landmarks: F32  # (478, 2), eyes as they are to be
    points: F32  # (68, 3)
    placed: F32  # (8,)
    text: Tensor  # (1, 77, D)
    speech: F32 | None  # (16, W)
    strengths: Strengths = Strengths()


class FrameModel:
    """The denoiser of one frame, with classifier-free guidance (arXiv 2207.12598) unless the scale is 1.

    Attributes:
        before: keys and values of the frames before; None where they are not looked at.
        keys: those that the last evaluation with conditions computed; None before one.
    """

    def __init__(
        self,
        guidance_scale: float,
        told: Conditions,
        untold: Conditions,
        guide: Guidance,
        before: Caches | None,
    ) -> None:
        self._scale, self._told, self._untold = guidance_scale, told, untold
        self._guide, self.before = guide, before
        self._dtype = told.text.dtype
        self.keys: Caches | None = None

    def predict(self, z_t: Tensor, t: Tensor) -> Work[Tensor]:
        """Latents (1, 4, h, w), time (1,) -> noise (1, 4, h, w); both halves of guidance at once."""
        z_t = z_t.to(self._dtype)
        conditions = [self._told] if self._scale == 1.0 else [self._told, self._untold]
        answers = yield [(z_t, t, one, self._guide, self.before) for one in conditions]
        noise, self.keys = answers[0]
        if self._scale == 1.0:
            return noise.float()
        without = answers[1][0].float()
        return without + self._scale * (noise.float() - without)


class FrameNetworks:
    """A `PortraitTalkModel` on its device, called with what one frame shows.

    Args:
        depth: (478,) of a face seen from the front (`FaceBasis.depth`).
        record: records the denoising step, which is then replayed (`cuda_graph` on a GPU).

    Attributes:
        plain: text (1, 77, D) of a frame without a prompt.
        step: one evaluation of the networks; see `engine.render.together`.
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
        self.step: Step = self.model if record is None else Recorded(self.model, record)
        self._tokenise, self._depth = tokenise, depth
        weight = next(model.unet.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.plain, self._nothing = (self.read(text) for text in (BASE_PROMPT, ""))

    def take_over(self, graph: Graph, batches: tuple[int, ...]) -> None:
        """Let a graph of the denoising step take it from the next evaluation on, for so many rows."""
        self.step = GraphStep(graph, batches, self.step)

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

    def decode(self, latents: Tensor) -> list[RgbImage]:
        """Latents (B, 4, h, w) -> the frames (S, S, 3)."""
        images = self.model.codec.decode(latents.to(self.dtype), tiny=self.sampling.tiny_codec)
        return list(to_bytes(images).cpu().numpy())

    def aim(self, face: DiffusionFace, condition: FrameCondition) -> Aim:
        """What `condition` asks of a frame of `face`."""
        landmarks = apply(face.to_unit, close_lids(condition.target, condition.blink))
        yaw, pitch = (float(angle) for angle in condition.placement[:2])
        points = landmarks_68(landmarks, yaw, pitch, self._depth)
        text, strengths = self.plain, condition.strengths
        if condition.words is not None:
            text = torch.lerp(text, condition.words.text, strengths.text)
        placed = placement(landmarks, yaw, pitch)
        return Aim(landmarks, points, placed, text, condition.speech, strengths)

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
            concat=self._concat(face, aim.landmarks),
            speech=speech,
        )
        landmarks, placed = (
            None if values is None else values.to(self.dtype)
            for values in (guide.landmarks, guide.placement)
        )
        return replace(guide, landmarks=landmarks, placement=placed)

    def _concat(self, face: DiffusionFace, landmarks: F32) -> Tensor | None:
        """DiffTalk's latents (1, 8, h, w): the portrait moved to `landmarks` and masked, and itself."""
        if not self.model.config.difftalk:
            return None
        target, picture = self.row(landmarks), to_tensor(face.rgb)[None].to(self.device)
        moved = follow(picture, self.row(face.landmarks), target)
        masked = hide_lower_half(moved, target).to(self.dtype)
        return self.model.concat(self.encode(masked), face.latents)

    def frame_model(
        self,
        face: DiffusionFace,
        guide: Guidance,
        text: Tensor,
        before: Caches | None,
        strengths: Strengths | None = None,
    ) -> FrameModel:
        """The denoiser of one frame in the words `text` (1, 77, D).

        Args:
            before: keys and values of the frames before; None where they are not looked at.
        """
        told = Conditions(text, face.identity, face.reference, weight=face.weight)
        told = told if strengths is None else self._weighed(told, strengths)
        untold = replace(told, text=self._nothing, identity=face.nobody)
        return FrameModel(self.sampling.guidance_scale, told, untold, guide, before)

    def remember(self, model: FrameModel) -> Caches | None:
        """What the frame of `model`, once drawn, leaves for the next; None before that."""
        return None if model.keys is None else self.model.remember(model.before, model.keys)

    def sample(
        self, model: FrameModel, condition: FrameCondition, last: Tensor | None = None
    ) -> Work[Tensor]:
        """Latents (1, 4, h, w) of one frame, from the noise of its stream.

        Args:
            last: latents like them of the frame before, to begin from with that noise added.
        """
        sampling = self.sampling
        if condition.steps:
            sampling = replace(sampling, num_inference_steps=condition.steps)
        generator = noise_between(condition.noise.seed)
        run = Denoising(
            condition.noise.start,
            sampling,
            generator=generator,
            clean=last,
            strength=sampling.start_strength,
        )
        while run.step < run.steps:
            run.advance((yield from model.predict(*run.ask())))
        return run.z_t

    def _weighed(self, told: Conditions, strengths: Strengths) -> Conditions:
        """The same conditions at their strengths; what counts as it was trained is not touched."""
        layers = self.model.config.unet.attention_layers

        def filled(value: float, *shape: int) -> Tensor:
            return torch.full(shape, value, device=self.device)

        if strengths.identity != 1:
            told = replace(told, scale=filled(strengths.identity, 1, layers))
        if strengths.reference != 1:
            whole = filled(1.0, 1, 1) if told.weight is None else told.weight
            told = replace(told, weight=whole * strengths.reference)
        if strengths.control != 1:
            told = replace(told, control=filled(strengths.control, 1))
        return told

    def row(self, values: F32) -> Tensor:
        """An array as a batch of one on the device, in full precision."""
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None].to(self.device)

    def tensor(self, values: NDArray[np.generic]) -> Tensor:
        """An array on the device in the networks' precision."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.dtype)
