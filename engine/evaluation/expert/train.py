"""Trains the audio-lip expert: `python -m engine.evaluation.expert --help`.

Voices are made first (two hours by espeak-ng in five minutes of a core, 5 minutes by Kokoro in six), recordings
may be added, lips are drawn up, then 3,000 steps are trained, in a quarter of an hour together. A stopped run goes
on where it was. What the network then finds: `engine.evaluation.expert.planted`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from engine.config import EngineConfig
from engine.evaluation.expert.dataset import Talk, recorded_talks, talks, unseen_faces
from engine.evaluation.expert.roughening import roughened
from engine.evaluation.expert.voices import speak
from engine.evaluation.track import face_reader
from engine.motion.retarget import FaceBasis
from engine.nets.sync_expert import SyncExpert
from engine.outputs import own_folder
from engine.training.checkpoints import CHECKPOINT
from engine.training.net_trainer import Keys, NetPlan, NetTrainer

log = logging.getLogger(__name__)
REACH = 15  # frames that a sound may be early or late
LENGTH = 90  # frames compared
BATCH = 20
SHARPNESS = 24.0  # of the cosines in the loss
FILE = "sync_expert.safetensors"


def batch_of(clips: Sequence[Talk], step: int, seed: int) -> tuple[Tensor, Tensor]:
    """Spectra (B, T, 80) and shapes (B, T, 8) of stretches of T = LENGTH + 2 REACH frames."""
    rng = np.random.RandomState([seed, step])
    length = LENGTH + 2 * REACH
    spectra, shapes = [], []
    sources: dict[str, list[Talk]] = {}  # each as often as the others, however much there is of it
    for clip in clips:
        sources.setdefault(clip.name.partition("_")[0], []).append(clip)
    names = list(sources)
    for _ in range(BATCH):
        source = sources[names[rng.randint(len(names))]]
        clip = source[rng.randint(len(source))]
        first = rng.randint(len(clip.shapes) - length + 1)
        a, b = roughened(
            clip.spectrum[first : first + length], clip.shapes[first : first + length], rng
        )
        spectra.append(a)
        shapes.append(b)
    return torch.from_numpy(np.stack(spectra)), torch.from_numpy(np.stack(shapes))


def loss_of(heard: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """How well embeddings (B, T, 32) tell the right shift of a stretch, and the right lips of a batch."""
    middle = heard[:, REACH:-REACH]
    windows = seen.unfold(1, middle.shape[1], 1)  # (B, 2 REACH + 1, 32, LENGTH)
    shifts = torch.einsum("btc,blct->bl", middle, windows) / middle.shape[1]
    right = torch.full((len(heard),), REACH)
    others = torch.einsum("btc,dtc->bd", middle, seen[:, REACH:-REACH]) / middle.shape[1]
    return {
        "shift": F.cross_entropy(SHARPNESS * shifts, right),
        "whose": F.cross_entropy(SHARPNESS * others, torch.arange(len(heard))),
    }


def train(clips: Sequence[Talk], steps: int, work: Path, seed: int = 0) -> SyncExpert:
    """Train on talks of at least LENGTH + 2 REACH frames; returns the mean of the weights."""
    torch.manual_seed(seed)
    net = SyncExpert()
    path = work / CHECKPOINT

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        parts = loss_of(*net(*batch_of(clips, step, seed)))
        return parts["shift"] + 0.5 * parts["whose"], parts

    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    plan = NetPlan(
        steps=steps, warm_up=100, floor=0.02, ema=0.995, keys=Keys(net="net", mean="mean")
    )
    trainer = NetTrainer(net, optimiser, loss, plan, path)
    while trainer.step < steps:
        parts = trainer.train_step()
        if trainer.step % 100 == 0:
            log.info("step %d: %s", trainer.step, {k: round(v, 3) for k, v in parts.items()})
            trainer.save(path)
    net.load_state_dict(trainer.averaged())
    return net.eval()


def main(
    work: Annotated[Path, typer.Option(help="folder of the voices and the checkpoint")],
    stills: Annotated[Path, typer.Option(help="tar file of single faces (SFHQ-T2I)")],
    cache: Annotated[Path, typer.Option(help="folder of downloaded packages")],
    english: Annotated[
        Path | None, typer.Option(help="folder of LJSpeech clips, metadata.csv: real recordings")
    ] = None,
    steps: Annotated[int, typer.Option(help="steps to train")] = 3000,
    espeak: Annotated[float, typer.Option(help="minutes of espeak-ng")] = 120,
    kokoro: Annotated[float, typer.Option(help="minutes of Kokoro")] = 5,
    seed: Annotated[int, typer.Option(help="of everything drawn at random")] = 0,
) -> None:
    """Make the voices, train, and write the weights into the folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    own_folder(work, earlier=(work / "speech").is_dir())
    speak(work / "speech", cache, {"espeak": espeak, "kokoro": kokoro}, seed)
    basis = FaceBasis.load(EngineConfig().weights / "basis.npz")
    faces = unseen_faces(stills, face_reader(), basis)
    made = [*talks(work / "speech", faces, basis, SyncExpert(), seed)]
    if english is not None:
        made += recorded_talks(english, faces, basis, SyncExpert())
    clips = [t for t in made if len(t.shapes) >= LENGTH + 2 * REACH]
    net = train(clips, steps, work, seed)
    told = {"steps": str(steps), "seed": str(seed), "talks": str(len(clips))}
    save_file(net.state_dict(), work / FILE, told)
    typer.echo(json.dumps(told | {"faces": len(faces), "file": str(work / FILE)}))


if __name__ == "__main__":
    typer.run(main)
