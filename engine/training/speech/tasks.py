"""What the speech encoder is taught: its tasks, their loss, and the batches they are learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.motion.channels import CHANNELS
from engine.nets.moonshine import StreamingMoonshine
from engine.nets.speech_stem import SpeechSettings
from engine.training.motion.dataset import Clip
from engine.training.speech.augment import Piece, cut, noise_only, roughen
from engine.training.speech.phones import PHONES

DELAY = 4  # frames of 20 ms between a sound and the answer about it: the look-ahead
WARM = 12  # first frames of a piece whose answers do not count: they lack a past
WIDTH = 64  # directions of the teacher that are learnt
WEIGHTS = {"phone": 1.0, "teacher": 1.0, "mouth": 0.5}  # of the tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechTraining:
    """One training run."""

    steps: int = 1500
    batch: int = 8
    frames: int = 120  # of 20 ms in a piece
    rate: float = 3e-4  # of the encoder; the heads, which begin at nothing, learn faster
    heads_rate: float = 1.5e-3
    animated_share: float = 0.3  # of the pieces
    noise_share: float = 0.07
    seed: int = 0


class SpeechTasks(nn.Module):
    """The encoder and a head for each of its tasks; only the encoder is kept."""

    def __init__(self, settings: SpeechSettings) -> None:
        super().__init__()
        self.encoder = StreamingMoonshine(settings)
        hidden = settings.hidden
        self.phone = nn.Linear(hidden, len(PHONES))
        self.teacher = nn.Linear(hidden, WIDTH)
        self.mouth = nn.Linear(hidden, len(CHANNELS))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of each task; `batch` is one of `batch_of`, with `variances`."""
        features = self.encoder(batch["pcm"])
        hidden = features[:, WARM + DELAY :, : self.encoder.settings.hidden]
        late = {k: batch[k][:, WARM:-DELAY] for k in ("phone", "teacher", "mouth")}
        real, taught = batch["real"][:, None, None], batch["taught"][:, None, None]
        teacher = (self.teacher(hidden) - late["teacher"]) ** 2 * taught
        made = 1 - real
        mouth = (self.mouth(hidden) - late["mouth"] / batch["mouth_var"] ** 0.5) ** 2 * made
        known = (late["phone"] >= 0).sum().clamp_min(1)  # none in a batch of recordings alone
        phones = F.cross_entropy(
            self.phone(hidden).flatten(0, 1),
            late["phone"].flatten(),
            ignore_index=-1,
            reduction="sum",
        )
        return {
            "phone": phones / known,
            "teacher": teacher.mean() / taught.mean().clamp_min(0.05),
            "mouth": mouth.mean() / made.mean().clamp_min(0.05),
        }


def batch_of(
    clips: Sequence[Clip], config: SpeechTraining, step: int
) -> dict[str, NDArray[np.generic]]:
    """Batch number `step`; it depends on the seed and its number alone.

    Returns:
        pcm (B, PAST + 320 T), mouth (B, T, channels), teacher (B, T, WIDTH), phone (B, T), and
        real and taught (B,), which say whose mouth and teacher count.
    """
    real = [c for c in clips if c.real]
    made = [c for c in clips if not c.real]
    rng = np.random.RandomState([config.seed, step])
    pieces: list[Piece] = []
    for _ in range(config.batch):
        group = real if rng.rand() < config.animated_share else made
        clip = group[rng.choice(len(group), p=_share(group))]
        piece = cut(clip, config.frames, rng, WIDTH)
        piece.pcm = roughen(piece.pcm, rng, np.roll(pieces[-1].pcm, 999) if pieces else None)
        if rng.rand() < config.noise_share:
            _silence(piece, config.frames, rng)
        pieces.append(piece)
    return collate(pieces)


def _share(clips: Sequence[Clip]) -> NDArray[np.float64]:
    lengths = np.array([len(c.mouth) for c in clips], np.float64)
    return lengths / lengths.sum()


def _silence(piece: Piece, frames: int, rng: np.random.RandomState) -> None:
    piece.pcm = noise_only(frames, rng)
    piece.phone[:] = 0
    piece.mouth[:] = 0
    piece.real = piece.taught = False


def collate(pieces: Sequence[Piece]) -> dict[str, NDArray[np.generic]]:
    """Pieces -> arrays with a batch axis."""
    arrays = {k: np.stack([getattr(p, k) for p in pieces]) for k in ("pcm", "mouth", "teacher")}
    flags = {k: np.array([getattr(p, k) for p in pieces], np.float32) for k in ("real", "taught")}
    return arrays | flags | {"phone": np.stack([p.phone for p in pieces]).astype(np.int64)}


def variances(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Spread of each mouth channel, floored so that rarely used ones do not dominate."""
    mouth = np.concatenate([c.mouth for c in clips]).var(0)
    return {"mouth_var": torch.tensor(np.maximum(mouth, 1e-3)).float()}
