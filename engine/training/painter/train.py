"""Trains the picture networks: the codec first, then ReferenceNet, AnimateNet and IdentityNet.

Once the codec stands its encoder is frozen and its decoder learns on. Some samples sit at t = 1 so
that one step works from the start; the others sit where the sampler's own earlier steps led, so that
further steps mend what the first ones missed and never meet latents better than their own. With
`full_noise` below 1 some are true latents with noise, as in plain diffusion (a first run begins so).
The previous frame is the network's own, rolled out through the very cache of inference, or the cold
start.
"""

from __future__ import annotations

import argparse
import copy
import json
import queue
import threading
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from engine.diffusion.flow import flow_path
from engine.loaders.lpips import Lpips
from engine.nets.painter import Cache, Painter, Reference
from engine.outputs import own_folder
from engine.training.painter.pairs import Pairs, Triple, load_people, mirror_order

HOLD_OUT = 40  # every 40th person is never trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class PainterTraining:
    """Settings of one run; the run folder keeps them."""

    steps: int = 2300
    codec_steps: int = 160  # encoder and decoder alone; then the encoder is frozen
    batch: int = 8
    rate: float = 5e-4
    warm_up: int = 150
    codec_share: float = 0.25  # of a batch decodes the true latents
    full_noise: float = 1.0  # of the samples of a step that is not rolled sit at t = 1
    rolled: float = 0.6  # of the steps go on from the sampler's own first steps
    rolled_steps: tuple[int, ...] = (4, 10, 25, 25)  # lengths of the sampler, drawn at random
    cold: float = 0.4  # of the steps start from the cold cache
    ema: float = 0.998
    seed: int = 0


def mouth_crop(picture: Tensor, landmarks: Tensor, side: int = 72) -> Tensor:
    """The lips and a little skin: (B, C, H, W) -> (B, C, side, side)."""
    centre = (landmarks[:, [61, 291]].mean(1) + landmarks[:, [13, 14]].mean(1)) / 2
    half = (landmarks[:, 61] - landmarks[:, 291]).norm(dim=-1) * 0.85
    theta = torch.zeros(len(picture), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 2 * half
    theta[:, :, 2] = centre * 2 - 1
    grid = F.affine_grid(theta, [len(picture), 1, side, side], align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False, padding_mode="border")


class Trainer:
    """One run: networks, optimisers, step counter; saves and resumes exactly these."""

    def __init__(self, settings: PainterTraining, perceptual: nn.Module) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.net = Painter().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.lpips = perceptual
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), settings.rate, betas=(0.9, 0.98), weight_decay=1e-4
        )
        self.step = 0
        self.parts = ("net", "ema", "optimiser")

    def compile(self) -> None:
        """Compile what runs every step (minutes once, then a third less time a step)."""
        for module in (self.net.geometry, self.net.identity_net, self.net.decoder):
            module.compile(dynamic=False)

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs."""
        state = {name: getattr(self, name).state_dict() for name in self.parts}
        torch.save({**state, "step": self.step}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def load(self, path: Path) -> None:
        """Continue where `path` was saved."""
        state = torch.load(path, weights_only=True)
        for name in self.parts:
            getattr(self, name).load_state_dict(state[name])
        self.step = int(state["step"])

    def _rate(self) -> float:
        s = self.settings
        cosine = 0.5 * (1 + np.cos(np.pi * min(1.0, self.step / s.steps)))
        return float(s.rate * min(1, (self.step + 1) / s.warm_up) * (0.05 + 0.95 * cosine))

    def _previous(self, batch: Triple, reference: Reference) -> Cache:
        """The cache this frame starts from: cold, or the network's own earlier frame."""
        cold = self.net.cold(reference)
        if torch.rand(()) < self.settings.cold:
            return cold
        size = len(batch.target)
        near = torch.rand(size, 1, 1)  # between the target's face and another one
        landmarks = batch.target_landmarks + near * (
            batch.earlier_landmarks - batch.target_landmarks
        )
        placement = batch.target_placement + near[:, 0] * (
            batch.earlier_placement - batch.target_placement
        )
        with torch.no_grad():
            still = Reference(
                reference.latents.detach(),
                tuple(k.detach() for k in reference.keys),
                reference.identity.detach(),
            )
            condition = self.net.condition(
                batch.reference, still, batch.reference_landmarks, landmarks, placement
            )
            guidance = self.net.guide(condition, self.net.cold(still))
            noise = torch.randn_like(still.latents)
            made = self.net.denoise(noise, torch.ones(size), guidance, still, self.net.cold(still))
            blur = 0.15 * torch.rand(size, 1, 1, 1) * torch.randn_like(made.latents)
        return Cache(made.latents + blur, made.keys)

    def _codec(self, batch: Triple) -> dict[str, Tensor]:
        true = self.net.encoder(batch.target)
        with torch.no_grad():
            warped, _, _, opening = self.net.geometry(
                batch.reference, true, batch.reference_landmarks, batch.target_landmarks
            )
        painted, _ = self.net.decoder(true, warped, opening)
        return self._compare(painted, batch)

    def _compare(self, painted: Tensor, batch: Triple) -> dict[str, Tensor]:
        mouth, wanted = (mouth_crop(x, batch.target_landmarks) for x in (painted, batch.target))
        return {
            "l1": (painted - batch.target).abs().mean(),
            "lpips": self.lpips(painted, batch.target).mean(),
            "mouth": (mouth - wanted).abs().mean(),
            "mouth_lpips": self.lpips(mouth, wanted).mean(),
        }

    def _diffusion(self, batch: Triple) -> dict[str, Tensor]:
        s = self.settings
        size = len(batch.target)
        with torch.no_grad():
            true = self.net.encoder(batch.target)
        reference = self.net.enroll(batch.reference)
        with torch.no_grad():
            condition = self.net.condition(
                *(batch.reference, reference, batch.reference_landmarks),
                *(batch.target_landmarks, batch.target_placement),
            )
        cache = self._previous(batch, reference)
        guidance = self.net.guide(condition, cache)
        if torch.rand(()) < s.rolled:
            z_t, t = self._rolled(torch.randn_like(true), guidance, reference, cache)
        else:
            t = torch.where(torch.rand(size) < s.full_noise, torch.ones(size), torch.rand(size))
            mix = t[:, None, None, None]
            z_t = (1 - mix) * true + mix * torch.randn_like(true)
        made = self.net.denoise(z_t, t, guidance, reference, cache)
        head = round(size * s.codec_share)
        latents = torch.cat([true[:head], made.latents[head:]])
        painted, trust = self.net.decoder(latents, condition.warped, condition.opening)
        losses = self._compare(painted, batch)
        return {**losses, "latent": F.mse_loss(made.latents, true)}

    @torch.no_grad()
    def _rolled(
        self,
        noise: Tensor,
        guidance: tuple[Tensor, Tensor, Tensor],
        reference: Reference,
        cache: Cache,
    ) -> tuple[Tensor, Tensor]:
        """Where the sampler stands after some of its steps: z_t and t."""
        choices = self.settings.rolled_steps
        steps = choices[int(torch.randint(len(choices), ()))]
        done = int(torch.randint(1, steps, ()))

        def predict(z_t: Tensor, now: float) -> Tensor:
            t = torch.full((len(noise),), now)
            return self.net.denoise(z_t, t, guidance, reference, cache).latents

        z_t, left = next(islice(flow_path(predict, noise, steps), done - 1, None))
        return z_t, torch.full((len(noise),), left)

    def start_from(self, path: Path) -> None:
        """Begin a new run with the weights of an earlier one (`painter.safetensors`)."""
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
        self.net.load_state_dict(weights)
        self.ema.load_state_dict(weights)

    def train_step(self, batch: Triple) -> dict[str, float]:
        """One step of the networks."""
        s = self.settings
        torch.manual_seed(s.seed * 1_000_003 + self.step)  # a resumed run equals an unbroken one
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        codec = self.step < s.codec_steps
        self.net.encoder.requires_grad_(codec)
        losses = self._codec(batch) if codec else self._diffusion(batch)
        total = losses["l1"] + losses["lpips"] + 0.6 * losses["mouth"]
        total = total + 0.7 * losses["mouth_lpips"]
        if not codec:
            total = total + 0.15 * losses["latent"]
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        values = {name: loss.item() for name, loss in losses.items()}
        self._average()
        self.step += 1
        return values

    def _average(self) -> None:
        s = self.settings
        decay = min(s.ema, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for kept, live in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(live, 1 - decay)


@torch.no_grad()
def evaluate(
    net: Painter, triple: Triple, lpips: nn.Module, steps: tuple[int, ...] = (1, 2, 4, 25)
) -> dict[str, dict[str, float]]:
    """LPIPS and PSNR of the crop and LPIPS of the mouth crop on held-out people."""
    reference = net.enroll(triple.reference)
    condition = net.condition(
        triple.reference,
        reference,
        triple.reference_landmarks,
        triple.target_landmarks,
        triple.target_placement,
    )
    rows = {"warp alone": condition.warped}
    noise = net.noise(1).expand(len(triple.target), -1, -1, -1)
    for count in steps:
        torch.manual_seed(0)
        rows[f"{count} step"] = net.sample(condition, reference, net.cold(reference), noise, count)[
            0
        ]
    rows["codec bound"] = net.decoder(
        net.encoder(triple.target), condition.warped, condition.opening
    )[0]
    table = {}
    for name, made in rows.items():
        mouth, wanted = (mouth_crop(x, triple.target_landmarks) for x in (made, triple.target))
        error = ((mouth - wanted) / 2).square().mean((1, 2, 3))
        table[name] = {
            "lpips": round(float(lpips(made, triple.target).mean()), 4),
            "mouth_lpips": round(float(lpips(mouth, wanted).mean()), 4),
            "mouth_psnr": round(float((-10 * error.log10()).mean()), 2),
        }
    return table


@torch.no_grad()
def sheet(net: Painter, triple: Triple, path: Path, rows: int = 10) -> None:
    """Write a picture to look at: reference, warp, one step, two steps, target, a person a row."""
    part = Triple(*(getattr(triple, name)[:rows] for name in Triple.__slots__))
    reference = net.enroll(part.reference)
    condition = net.condition(
        part.reference,
        reference,
        part.reference_landmarks,
        part.target_landmarks,
        part.target_placement,
    )
    noise = net.noise(1).expand(len(part.target), -1, -1, -1)
    made = [net.sample(condition, reference, net.cold(reference), noise, n)[0] for n in (1, 2)]
    columns = torch.cat([part.reference, condition.warped, *made, part.target], 3)
    rgb = columns.permute(0, 2, 3, 1).reshape(-1, columns.shape[3], 3)
    cv2.imwrite(str(path), ((rgb.clamp(-1, 1) + 1) * 127.5).byte().numpy()[:, :, ::-1])


def batch_of(pairs: Pairs, settings: PainterTraining, step: int) -> Triple:
    """The batch of one step: the same whether the run was broken off before it or not."""
    return pairs.batch(settings.batch, np.random.RandomState([settings.seed, step]))


def _feed(pairs: Pairs, settings: PainterTraining, start: int, ready: queue.Queue[Triple]) -> None:
    for step in range(start, settings.steps):
        ready.put(batch_of(pairs, settings, step))


def main() -> None:
    """Train, resuming the run folder when it has a checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders of `faces` chunks"
    )
    parser.add_argument("--run", type=Path, required=True, help="checkpoints and sheets go here")
    parser.add_argument("--cache", type=Path, required=True, help="downloaded tools")
    parser.add_argument(
        "--steps", type=int, default=PainterTraining.__dataclass_fields__["steps"].default
    )
    parser.add_argument(
        "--start", type=Path, help="painter.safetensors of an earlier run to begin with"
    )
    parser.add_argument(
        "--rate", type=float, default=PainterTraining.__dataclass_fields__["rate"].default
    )
    parser.add_argument(
        "--full-noise",
        type=float,
        default=PainterTraining.__dataclass_fields__["full_noise"].default,
        help="share of the steps not rolled that begin at noise; below 1 for a first run",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="compile the networks first (minutes)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    settings = PainterTraining(steps=args.steps, rate=args.rate, full_noise=args.full_noise)
    own_folder(args.run, earlier=(args.run / "painter.pt").exists())
    (args.run / "config.json").write_text(json.dumps(asdict(settings), indent=1))

    people = [person for folder in args.data for person in load_people(folder)]
    mirror = mirror_order(people)
    held_out = Pairs(people[::HOLD_OUT], mirror, augment=False).fixed()
    train = Pairs([p for i, p in enumerate(people) if i % HOLD_OUT], mirror)
    trainer = Trainer(settings, Lpips(args.cache))
    checkpoint = args.run / "painter.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    elif args.start is not None:
        trainer.start_from(args.start)
    if args.compile:
        trainer.compile()
    ready: queue.Queue[Triple] = queue.Queue(4)
    threading.Thread(target=_feed, args=(train, settings, trainer.step, ready), daemon=True).start()
    log = (args.run / "log.jsonl").open("a")
    smooth: dict[str, float] = {}
    bar = tqdm(initial=trainer.step, total=settings.steps, desc="painter", unit="step")
    while trainer.step < settings.steps:
        values = trainer.train_step(ready.get())
        smooth = {k: 0.98 * smooth.get(k, v) + 0.02 * v for k, v in values.items()}
        bar.update()
        bar.set_postfix({k: f"{v:.3f}" for k, v in smooth.items()})
        if trainer.step % 250 == 0 or trainer.step == settings.steps:
            trainer.save(checkpoint)
            sheet(trainer.ema, held_out, args.run / f"sheet_{trainer.step:06d}.png")
            table = evaluate(trainer.ema, held_out, trainer.lpips)
            log.write(
                json.dumps(
                    {"step": trainer.step, "time": time.time(), "loss": smooth, "held_out": table}
                )
                + "\n"
            )
            log.flush()


if __name__ == "__main__":
    main()
