"""The full-size system as the renderer of an engine: a whole frame from landmarks and words.

The portrait is cut to a square around the head, and every frame is that square. A frame is sampled
under the drawn landmarks, the person's tokens, the words and the portrait's keys and values, and sees
the keys and values that the last denoising step of the frame before left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.backends.cuda_graph import Record
from engine.errors import ConfigError
from engine.face.landmarks import apply, compose, invert
from engine.face.placement import placement
from engine.nets.attention import KeyValues
from engine.nets.portraittalk import Caches, PortraitTalkModel, hide_lower_half
from engine.nets.projection import mix
from engine.nets.text_tokens import Tokenise
from engine.render.base import FrameCondition, Portrait
from engine.render.head_square import cut_square
from engine.render.sd15_networks import (
    BASE_PROMPT,
    DiffusionFace,
    FrameNetworks,
    Sampling,
)
from engine.render.sd15_video import DiffusionFusedVideo, fused_video
from engine.render.together import together
from engine.types import RgbImage

F32 = NDArray[np.float32]
Embed = Callable[[RgbImage, F32], F32]  # image, landmarks (478, 2) in pixels -> (E,)


@dataclass(frozen=True, slots=True)
class DiffusionCache:
    """What one frame hands to the next."""

    keys: Caches | None  # None before the first frame
    placed: F32  # (8,) where its head was


@dataclass(frozen=True, slots=True)
class StreamNoise:
    """The noise every frame begins from, and the seed of what some samplers add between steps."""

    start: Tensor  # (1, 4, h, w)
    seed: int


@dataclass(frozen=True, slots=True)
class Words:
    """A prompt as the text encoder read it."""

    text: Tensor  # (1, 77, D)


class DiffusionRenderer:
    """Draws with a `PortraitTalkModel`; an `engine.render.base.Renderer`.

    Args:
        embed: the face encoder; None where the model has no use for it.
        record: records the denoising step, which is then replayed (`cuda_graph` on a GPU).
        depth: (478,) of a face seen from the front (`FaceBasis.depth`).

    Attributes:
        networks: what it draws with.
    """

    carries = False

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
        self.networks = FrameNetworks(
            model, self.sampling, tokenise=tokenise, depth=depth, record=record
        )
        self._embed = embed

    @torch.inference_mode()
    def read_words(self, text: str, others: tuple[str, ...]) -> Words | None:
        """Encode the whole prompt; nothing is refused here."""
        return Words(self.networks.read(f"{BASE_PROMPT}, {text}")) if text.strip() else None

    def enroll(self, portrait: Portrait) -> DiffusionFace:
        """Enrol a person from one portrait."""
        return self.enroll_several([portrait])

    @torch.inference_mode()
    def enroll_several(
        self, own: Sequence[Portrait], mixed: Sequence[tuple[Portrait, float]] = ()
    ) -> DiffusionFace:
        """Enrol a person from one or several portraits, perhaps on the way to other people.

        Args:
            own: portraits of the person; the first one is what the face moves from.
            mixed: other people and how much of each, below 1 in all; the person keeps the rest.

        Raises:
            ConfigError: the shares leave nothing of the person.
        """
        networks, model = self.networks, self.networks.model
        squares = [cut_square(portrait, model.config.picture_side) for portrait in own]
        shown, to_square = squares[0]
        unit = to_square / np.float32(len(shown))
        pictures = torch.stack([_tensor(rgb) for rgb, _ in squares])
        pictures = pictures.to(networks.device, networks.dtype)
        latents = networks.encode(pictures)[None]
        identity, nobody = self._tokens(own, mixed)
        landmarks = apply(unit, own[0].landmarks)
        masked = hide_lower_half(pictures[:1], networks.row(landmarks))
        return DiffusionFace(
            size=(networks.frame_side, networks.frame_side),
            to_unit=compose(unit, invert(own[0].to_crop)),
            identity=identity,
            nobody=nobody,
            reference=model.write_reference(latents, networks.plain, identity),
            concat=model.concat(networks.encode(masked), latents[:, 0]),
            landmarks=landmarks,
            placed=placement(landmarks, 0.0, 0.0),
            rgb=shown,
        )

    def noise(self, seed: int) -> StreamNoise:
        """Draw the noise of a stream, the same for all its frames."""
        sizes = self.networks.model.config.unet
        generator = torch.Generator().manual_seed(seed)
        shape = (1, sizes.latent_channels, sizes.sample_size, sizes.sample_size)
        return StreamNoise(torch.randn(shape, generator=generator).to(self.networks.device), seed)

    @staticmethod
    def cold(face: DiffusionFace) -> DiffusionCache:
        """The cache before the first frame: nothing but where the portrait's head is."""
        return DiffusionCache(None, face.placed)

    def draw(
        self, jobs: Sequence[tuple[DiffusionFace, DiffusionCache, FrameCondition]]
    ) -> list[tuple[RgbImage, DiffusionCache]]:
        """Sample one frame (S, S, 3) of each stream, all of them in the same calls of the networks.

        Company changes a frame by rounding alone: at most 1 of 255.

        Raises:
            ConfigError: frames are to be sampled together, by `fuse`.
        """
        if self.sampling.long_video == "fusion":
            raise ConfigError("long_video='fusion' samples all frames together, not one by one")
        return self._draw(jobs)

    @torch.inference_mode()
    def _draw(
        self, jobs: Sequence[tuple[DiffusionFace, DiffusionCache, FrameCondition]]
    ) -> list[tuple[RgbImage, DiffusionCache]]:
        if not jobs:
            return []
        networks, cached = self.networks, self.sampling.long_video == "cache"
        works, models, aims = [], [], []
        for face, cache, condition in jobs:
            aim = networks.aim(face, condition)
            guide = networks.guide(face, aim, cache.placed)
            model = networks.frame_model(face, guide, aim.text, cache.keys if cached else None)
            works.append(networks.sample(model, condition))
            models.append(model)
            aims.append(aim)
        frames = networks.decode(torch.cat(together(networks.step, works)))
        return [
            (rgb, DiffusionCache(model.keys, aim.placed))
            for rgb, model, aim in zip(frames, models, aims, strict=True)
        ]

    @staticmethod
    def draw_between(
        jobs: Sequence[tuple[DiffusionFace, DiffusionCache, FrameCondition]],
    ) -> list[RgbImage | None]:
        """Nothing here moves a frame: the one before is to be shown again."""
        return [None for _ in jobs]

    @torch.inference_mode()
    def fuse(
        self, face: DiffusionFace, conditions: Sequence[FrameCondition]
    ) -> DiffusionFusedVideo:
        """Begin a video by progressive latent fusion; see `fused_video`."""
        return fused_video(self.networks, face, conditions)

    def pack(self, cache: DiffusionCache) -> dict[str, NDArray[np.generic]]:
        """A cache as arrays, from which `unpack` makes the same cache again."""
        kept: dict[str, NDArray[np.generic]] = {"placed": cache.placed}
        for net, pairs in enumerate(cache.keys or ()):
            for layer, pair in enumerate(pairs):
                for which, tensor in zip("kv", pair, strict=True):
                    kept[f"{net}.{layer}.{which}"] = tensor.float().cpu().numpy()
        return kept

    def unpack(self, kept: Mapping[str, NDArray[np.generic]]) -> DiffusionCache:
        """Undo `pack`."""
        tensor = self.networks.tensor

        def pairs(net: int) -> KeyValues:
            count = sum(name.startswith(f"{net}.") for name in kept) // 2
            return tuple(
                (tensor(kept[f"{net}.{i}.k"]), tensor(kept[f"{net}.{i}.v"])) for i in range(count)
            )

        keys = (pairs(0), pairs(1)) if "0.0.k" in kept else None
        return DiffusionCache(keys, np.asarray(kept["placed"], np.float32))

    def _tokens(
        self, own: Sequence[Portrait], mixed: Sequence[tuple[Portrait, float]]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Identity tokens (1, N, D) of the person and of nobody."""
        tokens = self._identify(own)
        if tokens is None:
            return None, None
        if mixed:
            others = [self._identify([portrait] * len(own)) for portrait, _ in mixed]
            people = [tokens, *(person for person in others if person is not None)]
            shares = [share for _, share in mixed]
            tokens = mix(people, [1 - sum(shares), *shares])
        networks = self.networks
        width = networks.model.config.face_embedding
        nobody = torch.zeros(1, len(own), width, device=networks.device, dtype=networks.dtype)
        return tokens, networks.model.identify(nobody)

    def _identify(self, portraits: Sequence[Portrait]) -> Tensor | None:
        if self._embed is None:
            return None
        rows = np.stack([self._embed(p.rgb, p.landmarks) for p in portraits])
        return self.networks.model.identify(self.networks.tensor(rows)[None])


def _tensor(rgb: RgbImage) -> Tensor:
    """(S, S, 3) uint8 -> (3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 127.5 - 1
