"""The full-size system as the picture part of an engine: a whole frame from landmarks and words.

The portrait is cut to a square around the head, and every frame is that square. A frame is sampled
under the drawn landmarks, the person's tokens, the words and the portrait's keys and values, and sees
the keys and values that the last denoising step of the frame before left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.backends.cuda_graph import Record, Recorded
from engine.diffusion.latent_fusion import LatentFusion
from engine.diffusion.samplers import Denoising, Model, guided, sample
from engine.errors import ConfigError
from engine.face.landmarks import Affine, apply, invert
from engine.face.placement import landmarks_68, placement
from engine.nets.attention import KeyValues
from engine.nets.portraittalk import (
    Caches,
    Conditions,
    Guidance,
    PortraitTalkModel,
    hide_lower_half,
)
from engine.nets.projection import mix
from engine.nets.sd_codec import to_bytes
from engine.nets.text_tokens import Tokenise
from engine.render.base import FrameCondition, Portrait
from engine.render.head_square import close_lids, compose, cut_square
from engine.types import RgbImage

F32 = NDArray[np.float32]
Embed = Callable[[RgbImage, F32], F32]  # picture, landmarks (478, 2) in pixels -> (E,)
BASE_PROMPT = "portrait of a person, looking at the camera"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a frame is sampled."""

    sampler: str = "ddim"
    num_inference_steps: int = 4
    guidance_scale: float = 1.0
    trailing: bool = True  # DDIM's steps counted from the last one back, as students are trained
    tiny_codec: bool = True
    long_video: Literal["cache", "fusion", "neither"] = "cache"  # see `DiffusionSettings`
    window: int = 16  # of latent fusion, in frames
    overlap: int = 4


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
class DiffusionCache:
    """What one frame hands to the next."""

    keys: Caches | None  # None before the first frame
    placed: F32  # (8,)
    rgb: RgbImage


@dataclass(frozen=True, slots=True)
class Aim:
    """What a condition asks of one frame, in units of the frame."""

    landmarks: F32  # (478, 2), eyes as they are to be
    points: F32  # (68, 3)
    placed: F32  # (8,)
    text: Tensor  # (1, 77, D)
    speech: F32 | None  # (16, W)


@dataclass(frozen=True, slots=True)
class StreamNoise:
    """The noise every frame begins from, and the seed of what some samplers add between steps."""

    start: Tensor  # (1, 4, h, w)
    seed: int


@dataclass(frozen=True, slots=True)
class Words:
    """A prompt as the text encoder read it."""

    text: Tensor  # (1, 77, D)


class DiffusionFusedVideo:
    """A video by latent fusion; an `engine.render.base.FusedVideo`.

    Args:
        decode: latents (1, 4, h, w) -> picture.
    """

    def __init__(self, fusion: LatentFusion, decode: Callable[[Tensor], RgbImage]) -> None:
        self._fusion, self._decode = fusion, decode
        self.total = fusion.total
        self.pack, self.unpack = fusion.pack, fusion.unpack

    @property
    def done(self) -> int:
        """Windows sampled, over all steps."""
        return self._fusion.done

    @torch.inference_mode()
    def work(self) -> None:
        """Sample one window of one step."""
        self._fusion.work()

    @torch.inference_mode()
    def frame(self, index: int) -> RgbImage:
        """Decode one frame; row 0 is the portrait."""
        return self._decode(self._fusion.latents[index + 1 : index + 2])


class DiffusionRenderer:
    """Draws with a `PortraitTalkModel`; an `engine.render.base.Renderer`.

    Args:
        embed: the face encoder; None where the model has no use for it.
        record: records the denoising step, which is then replayed (`cuda_graph` on a GPU).
        depth: (478,) of a face seen from the front (`FaceBasis.depth`).
    """

    def __init__(
        self,
        model: PortraitTalkModel,
        *,
        tokenise: Tokenise,
        depth: F32,
        embed: Embed | None = None,
        sampling: Sampling | None = None,
        record: Record | None = None,
    ) -> None:
        self.sampling = sampling or Sampling()
        self._model = model.eval().requires_grad_(False)
        self._step = self._model if record is None else Recorded(self._model, record)
        self._tokenise, self._embed, self._depth = tokenise, embed, depth
        weight = next(model.unet.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self._plain, self._nothing = (self._read(text) for text in (BASE_PROMPT, ""))

    @torch.inference_mode()
    def read_words(self, text: str, others: tuple[str, ...]) -> Words | None:
        """Encode the whole prompt; nothing is refused here."""
        return Words(self._read(f"{BASE_PROMPT}, {text}")) if text.strip() else None

    @torch.inference_mode()
    def enroll(
        self,
        portrait: Portrait,
        more: Sequence[Portrait] = (),
        mixed: Sequence[tuple[Portrait, float]] = (),
    ) -> DiffusionFace:
        """Enrol a person from one or several portraits, perhaps on the way to other people.

        Args:
            more: further portraits of the same person.
            mixed: other people and how much of each, below 1 in all; the person keeps the rest.
        """
        squares = [cut_square(p, self._model.config.picture_side) for p in (portrait, *more)]
        shown, to_square = squares[0]
        unit = to_square / np.float32(len(shown))
        pictures = torch.stack([_tensor(rgb) for rgb, _ in squares]).to(self._device, self._dtype)
        latents = self._encode(pictures)[None]
        identity, nobody = self._tokens((portrait, *more), mixed)
        landmarks = apply(unit, portrait.landmarks)
        masked = hide_lower_half(pictures[:1], self._row(landmarks))
        return DiffusionFace(
            size=(self._output_side, self._output_side),
            to_unit=compose(unit, invert(portrait.to_crop)),
            identity=identity,
            nobody=nobody,
            reference=self._model.write_reference(latents, self._plain, identity),
            concat=self._model.concat(self._encode(masked), latents[:, 0]),
            landmarks=landmarks,
            placed=placement(landmarks, 0.0, 0.0),
            rgb=shown,
        )

    def noise(self, seed: int) -> StreamNoise:
        """Draw the noise of a stream, the same for all its frames."""
        sizes = self._model.config.unet
        generator = torch.Generator().manual_seed(seed)
        shape = (1, sizes.latent_channels, sizes.sample_size, sizes.sample_size)
        return StreamNoise(torch.randn(shape, generator=generator).to(self._device), seed)

    @staticmethod
    def cold(face: DiffusionFace) -> DiffusionCache:
        """The cache before the first frame: nothing but where the portrait's head is."""
        return DiffusionCache(None, face.placed, face.rgb)

    @torch.inference_mode()
    def draw(
        self, face: DiffusionFace, cache: DiffusionCache, condition: FrameCondition
    ) -> tuple[RgbImage, DiffusionCache]:
        """Sample one frame.

        Raises:
            ConfigError: frames are to be sampled together, by `film`.
        """
        if self.sampling.long_video == "fusion":
            raise ConfigError("long_video='fusion' samples all frames together, not one by one")
        aim = self._aim(face, condition)
        guide = self._guide(face, aim, cache.placed)
        latents, keys = self._sample(face, cache, condition, guide, aim.text)
        rgb = self._decode(latents)
        return rgb, DiffusionCache(keys, aim.placed, rgb)

    @staticmethod
    def draw_between(
        face: DiffusionFace, cache: DiffusionCache, condition: FrameCondition
    ) -> RgbImage:
        """The frame before, again: nothing here moves a picture."""
        return cache.rgb

    @torch.inference_mode()
    def film(
        self, face: DiffusionFace, conditions: Sequence[FrameCondition]
    ) -> DiffusionFusedVideo:
        """Begin a video by progressive latent fusion.

        Row 0 of its latents is the portrait at rest, in the words of the first frame: it is pinned to
        every window and not shown. Within a window each frame sees the keys and values that the one
        before it has at the same step.
        """
        aims = [self._aim(face, condition) for condition in conditions]
        points = landmarks_68(face.landmarks, 0.0, 0.0, self._depth)
        rest = replace(aims[0], landmarks=face.landmarks, points=points, placed=face.placed)
        aims.insert(0, rest)

        def window(z_t: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            before, made = None, []
            for place, row in enumerate(rows.tolist()):
                aim = aims[row]
                guide = self._guide(face, aim, aims[max(row - 1, 0)].placed)
                models, left = self._models(face, guide, aim.text, before)
                model = guided(*models, self.sampling.guidance_scale)
                made.append(model(z_t[place : place + 1], t[place : place + 1]))
                before = left[0]
            return torch.cat(made)

        how, noise = self.sampling, conditions[0].noise
        run = Denoising(
            *(noise.start.expand(len(aims), -1, -1, -1), how.sampler, how.num_inference_steps),
            generator=torch.Generator().manual_seed(noise.seed),
            trailing=how.trailing,
        )
        fusion = LatentFusion(window, run, window=how.window, overlap=how.overlap)
        return DiffusionFusedVideo(fusion, self._decode)

    def pack(self, cache: DiffusionCache) -> dict[str, NDArray[np.generic]]:
        """A cache as arrays, from which `unpack` makes the same cache again."""
        kept: dict[str, NDArray[np.generic]] = {"placed": cache.placed, "rgb": cache.rgb}
        for net, pairs in enumerate(cache.keys or ()):
            for layer, pair in enumerate(pairs):
                for which, tensor in zip("kv", pair, strict=True):
                    kept[f"{net}.{layer}.{which}"] = tensor.float().cpu().numpy()
        return kept

    def unpack(self, kept: Mapping[str, NDArray[np.generic]]) -> DiffusionCache:
        """Undo `pack`."""

        def pairs(net: int) -> KeyValues:
            count = sum(name.startswith(f"{net}.") for name in kept) // 2
            return tuple(
                (self._tensor(kept[f"{net}.{i}.k"]), self._tensor(kept[f"{net}.{i}.v"]))
                for i in range(count)
            )

        keys = (pairs(0), pairs(1)) if "0.0.k" in kept else None
        return DiffusionCache(
            keys, np.asarray(kept["placed"], np.float32), np.asarray(kept["rgb"], np.uint8)
        )

    def _sample(
        self,
        face: DiffusionFace,
        cache: DiffusionCache,
        condition: FrameCondition,
        guide: Guidance,
        text: Tensor,
    ) -> tuple[Tensor, Caches | None]:
        how = self.sampling
        before = cache.keys if how.long_video == "cache" else None
        (conditional, unconditional), left = self._models(face, guide, text, before)
        latents = sample(
            *(conditional, condition.noise.start, how.sampler, how.num_inference_steps),
            unconditional=unconditional,
            guidance=how.guidance_scale,
            generator=torch.Generator().manual_seed(
                condition.noise.seed * 1_000_003 + condition.index
            ),
            trailing=how.trailing,
        )
        return latents, left[0]

    def _models(
        self, face: DiffusionFace, guide: Guidance, text: Tensor, before: Caches | None
    ) -> tuple[tuple[Model, Model], list[Caches | None]]:
        """The model of one frame with its conditions and without; what its last evaluation left."""
        told = Conditions(text, face.identity, face.reference)
        untold = replace(told, text=self._nothing, identity=face.nobody)
        left: list[Caches | None] = [None]

        def conditional(z_t: Tensor, t: Tensor) -> Tensor:
            noise, left[0] = self._step(z_t.to(self._dtype), t, told, guide, before)
            return noise.float()

        def unconditional(z_t: Tensor, t: Tensor) -> Tensor:
            return self._step(z_t.to(self._dtype), t, untold, guide, before)[0].float()

        return (conditional, unconditional), left

    def _encode(self, pictures: Tensor) -> Tensor:
        return self._model.codec.encode(pictures, tiny=self.sampling.tiny_codec)

    def _decode(self, latents: Tensor) -> RgbImage:
        """The picture of latents (1, 4, h, w)."""
        pictures = self._model.codec.decode(latents.to(self._dtype), tiny=self.sampling.tiny_codec)
        rgb: RgbImage = to_bytes(pictures)[0].cpu().numpy()
        return rgb

    def _aim(self, face: DiffusionFace, condition: FrameCondition) -> Aim:
        landmarks = apply(face.to_unit, close_lids(condition.target, condition.blink))
        yaw, pitch = (float(angle) for angle in condition.placement[:2])
        points = landmarks_68(landmarks, yaw, pitch, self._depth)
        text = self._plain if condition.words is None else condition.words.text
        return Aim(landmarks, points, placement(landmarks, yaw, pitch), text, condition.speech)

    def _guide(self, face: DiffusionFace, aim: Aim, before: F32) -> Guidance:
        """Guidance of one frame, the head having been at `before` (8,).

        Landmarks are drawn by the pixel, so in full precision.
        """
        speech = None if aim.speech is None else self._tensor(aim.speech)[None]
        guide = self._model.guidance(
            *map(self._row, (aim.landmarks, aim.points, before)), concat=face.concat, speech=speech
        )
        told = None if guide.placement is None else guide.placement.to(self._dtype)
        return replace(guide, landmarks=guide.landmarks.to(self._dtype), placement=told)

    def _tokens(
        self, own: Sequence[Portrait], mixed: Sequence[tuple[Portrait, float]]
    ) -> tuple[Tensor | None, Tensor | None]:
        if self._embed is None:
            return None, None
        tokens = self._identify(own)
        if tokens is None:
            return None, None
        if mixed:
            others = [self._identify([portrait] * len(own)) for portrait, _ in mixed]
            people = [tokens, *(person for person in others if person is not None)]
            shares = [share for _, share in mixed]
            tokens = mix(people, [1 - sum(shares), *shares])
        width = self._model.config.face_embedding
        nobody = torch.zeros(1, len(own), width, device=self._device, dtype=self._dtype)
        return tokens, self._model.identify(nobody)

    def _identify(self, portraits: Sequence[Portrait]) -> Tensor | None:
        assert self._embed is not None
        rows = np.stack([self._embed(p.rgb, p.landmarks) for p in portraits])
        return self._model.identify(self._tensor(rows)[None])

    def _read(self, text: str) -> Tensor:
        with torch.inference_mode():
            return self._model.read(self._tokenise([text]).to(self._device)).to(self._dtype)

    def _row(self, values: F32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None].to(self._device)

    def _tensor(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, self._dtype)

    @property
    def _output_side(self) -> int:
        doubled = self._model.codec.enlarge is not None
        return self._model.config.picture_side * (2 if doubled else 1)


def _tensor(rgb: RgbImage) -> Tensor:
    """(S, S, 3) uint8 -> (3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 127.5 - 1
