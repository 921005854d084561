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
from engine.face.framing import SIDE
from engine.face.head_mask import without_background
from engine.face.landmarks import apply, compose, invert
from engine.face.placement import placement
from engine.nets.attention import KeyValues, joined
from engine.nets.portraittalk import Caches, PortraitTalkModel
from engine.nets.projection import mix
from engine.nets.text_tokens import Tokenise
from engine.render.base import FrameCondition, Portrait
from engine.render.head_square import cut_head
from engine.render.sd15_networks import (
    BASE_PROMPT,
    DiffusionFace,
    FrameNetworks,
    Sampling,
    to_tensor,
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
        shown, to_square = cut_head(own[0], model.config.picture_side)
        unit = to_square / np.float32(len(shown))
        people = [own, *([portrait] for portrait, _ in mixed)]
        shares = [1 - sum(share for _, share in mixed), *(share for _, share in mixed)]
        tokens = [self._identify(person) for person in people]
        latents = [self._latents(person) for person in people]
        landmarks = apply(unit, own[0].landmarks)
        return DiffusionFace(
            size=(networks.frame_side, networks.frame_side),
            to_unit=compose(unit, invert(own[0].to_crop)),
            identity=_mixed(tokens, shares),
            nobody=self._nobody(len(own)),
            reference=joined(
                [
                    model.write_reference(z, networks.plain, who)
                    for z, who in zip(latents, tokens, strict=True)
                ]
            ),
            weight=self._weight(latents, shares) if mixed else None,
            latents=latents[0][:, 0],
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
            before = cache.keys if cached else None
            model = networks.frame_model(face, guide, aim.text, before, aim.strengths)
            works.append(networks.sample(model, condition))
            models.append(model)
            aims.append(aim)
        frames = networks.decode(torch.cat(together(networks.step, works)))
        return [
            (rgb, DiffusionCache(networks.remember(model), aim.placed))
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

    def _latents(self, person: Sequence[Portrait]) -> Tensor:
        """Latents (1, R, 4, h, w) of a person's portraits."""
        networks, side = self.networks, self.networks.model.config.picture_side
        pictures = torch.stack([to_tensor(cut_head(portrait, side)[0]) for portrait in person])
        return networks.encode(pictures.to(networks.device, networks.dtype))[None]

    def _weight(self, latents: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        """Weight (1, R) of each portrait of several people: together a person's are its share."""
        first = self.networks.model.config.references == "first"
        counts = [1 if first else z.shape[1] for z in latents]
        rows = [[share * counts[0] / n] * n for share, n in zip(shares, counts, strict=True)]
        return torch.tensor([sum(rows, [])], device=self.networks.device)

    def _identify(self, person: Sequence[Portrait]) -> Tensor | None:
        """Identity tokens (1, R * N, D), of heads without what is behind them."""
        if self._embed is None:
            return None
        rows = np.stack([embedded(self._embed, portrait) for portrait in person])
        return self.networks.model.identify(self.networks.tensor(rows)[None])

    def _nobody(self, portraits: int) -> Tensor | None:
        """Identity tokens (1, R * N, D) of no person."""
        networks = self.networks
        width = networks.model.config.embedding_width
        nobody = torch.zeros(1, portraits, width, device=networks.device, dtype=networks.dtype)
        return networks.model.identify(nobody)


def embedded(embed: Embed, portrait: Portrait) -> F32:
    """A face encoder's embedding (E,) of a portrait, seen as in the clips that training prepares."""
    head, to_square = cut_head(portrait, SIDE)
    landmarks = apply(to_square, portrait.landmarks)
    return embed(without_background(head, landmarks / np.float32(SIDE)), landmarks)


def _mixed(people: Sequence[Tensor | None], shares: Sequence[float]) -> Tensor | None:
    """Identity tokens (1, N, D) between those of several people; who has fewer portraits repeats them."""
    known = [tokens for tokens in people if tokens is not None]
    if len(known) < 2:
        return people[0]
    most = known[0].shape[1]
    return mix([tokens.repeat(1, most // tokens.shape[1], 1) for tokens in known], shares)
