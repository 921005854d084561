"""Trains the face detector and the landmark net: `python -m engine.training.face --help`.

    gather      cut and label the faces (once, or again while pictures are still being drawn)
    landmarks   train the landmark net
    detector      train the face detector
    sheet       a picture of training examples to look at

Training can be stopped and started again with the same command: it goes on from its last
checkpoint, with whatever faces are there by then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from engine.errors import DataError
from engine.face import topology
from engine.face.detector import CROP
from engine.nets.face import DetectorNet, LandmarkNet, mirror_scores
from engine.outputs import own_folder
from engine.training.face import dataset as face_data
from engine.training.face.crops import CropMaker, Crops
from engine.training.face.scenes import SceneMaker, Scenes

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

SAVE_EVERY = 200
WING, WING_BEND = 8.0, 2.0  # pixels of the crop

Faces = Annotated[Path, typer.Option(help="folder that `gather` wrote")]
Backgrounds = Annotated[Path, typer.Option(help="folder of pictures that show no human face")]
Out = Annotated[Path, typer.Option(help="folder of the run: checkpoint and log")]


def point_weights() -> Tensor:
    """(478,) weight of each landmark's error, mean 1: lips, eyelids and irises count most."""
    weights = np.ones(topology.POINTS, np.float32)
    weights[[*topology.RIGHT_BROW, *topology.LEFT_BROW]] = 1.5
    weights[[*topology.RIGHT_EYE, *topology.LEFT_EYE]] = 3.0
    weights[[*topology.RIGHT_IRIS, *topology.LEFT_IRIS]] = 3.0
    weights[sorted({p for row in topology.LIP_ROWS for p in row})] = 3.0
    return torch.from_numpy(weights / weights.mean())


def wing_loss(error: Tensor) -> Tensor:
    """Wing loss of errors in pixels: logarithmic below 8 pixels, linear above."""
    size = error.abs()
    offset = WING - WING * np.log(1 + WING / WING_BEND)
    return torch.where(size < WING, WING * torch.log1p(size / WING_BEND), size - offset)


def landmark_loss(out: tuple[Tensor, ...], crops: Crops, weights: Tensor) -> dict[str, Tensor]:
    """The parts of the landmark net's loss; only `presence` is asked of crops without a face."""
    landmarks, scores, angles, presence = out
    there = torch.from_numpy(crops.present)
    share = there / there.sum().clamp(min=1)
    wing = wing_loss((landmarks - torch.from_numpy(crops.landmarks)) * CROP)
    return {
        "points": ((wing.mean(2) * weights).mean(1) * share).sum(),
        "scores": 15 * ((scores - torch.from_numpy(crops.scores)).abs().mean(1) * share).sum(),
        "angles": 4 * ((angles - torch.from_numpy(crops.angles)).abs().mean(1) * share).sum(),
        "presence": 2 * functional.binary_cross_entropy_with_logits(presence[:, 0], there),
    }


def detector_loss(cells: Tensor, scenes: Scenes) -> dict[str, Tensor]:
    """Penalty-reduced focal loss of the scores, L1 of the boxes near a middle."""
    heat, boxes, near = (torch.from_numpy(a) for a in (scenes.heat, scenes.boxes, scenes.near))
    p = torch.sigmoid(cells[:, 0]).clamp(1e-5, 1 - 1e-5)
    middle = heat >= 1
    hit = -((1 - p) ** 2) * torch.log(p) * middle
    miss = -(p**2) * torch.log(1 - p) * (1 - heat) ** 4 * ~middle
    box = (cells[:, 1:] - boxes).abs().sum(1) * near
    return {
        "score": (hit + miss).sum() / middle.sum().clamp(min=1),
        "box": box.sum() / near.sum().clamp(min=1),
    }


class Run:
    """A net, its slow average, its optimizer and its step, kept in one checkpoint file."""

    def __init__(self, net: nn.Module, out: Path, steps: int, rate: float) -> None:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net = net
        self.average = AveragedModel(
            net,
            multi_avg_fn=get_ema_multi_avg_fn(0.998),
            use_buffers=True,
        )
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.02)
        self.steps, self.rate, self.step = steps, rate, 0
        self._out, self._path = out, out / "checkpoint.pt"
        own_folder(out, earlier=self._path.exists())
        if self._path.exists():
            saved = torch.load(self._path, weights_only=True)
            self.net.load_state_dict(saved["net"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = int(saved["step"])

    def train(
        self,
        loss: Callable[[np.random.Generator], dict[str, Tensor]],
        seed: int,
        until: int | None = None,
    ) -> None:
        """Take the remaining steps; `loss` draws a batch and returns the parts of its loss.

        Args:
            until: stop after this step of the schedule (default: its end).
        """
        last = self.steps if until is None else until
        start = time.monotonic()
        sums: dict[str, float] = {}
        bar = tqdm(range(self.step, last), initial=self.step, total=last, unit="step")
        for step in bar:
            warm = min(1.0, (step + 1) / 100)
            falling = 0.5 * (1 + np.cos(np.pi * step / self.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * warm * max(float(falling), 0.01)
            parts = loss(np.random.default_rng([seed, step]))
            self.optimizer.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
            self.optimizer.step()
            self.average.update_parameters(self.net)
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) * 0.98 + float(part.detach()) * 0.02
            self.step = step + 1
            if self.step % SAVE_EVERY == 0 or self.step == last:
                bar.set_postfix({k: f"{v / (1 - 0.98**self.step):.3f}" for k, v in sums.items()})
                self._save(sums, time.monotonic() - start)

    def _save(self, sums: dict[str, float], seconds: float) -> None:
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        partial = self._path.with_suffix(".part")
        torch.save(state, partial)
        partial.rename(self._path)
        row = {"step": self.step, "seconds": round(seconds), **sums}
        with (self._out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")


def trained(net: nn.Module, run: Path) -> nn.Module:
    """Put the averaged weights of checkpoint folder `run` into `net`, ready to use."""
    path = run / "checkpoint.pt"
    if not path.exists():
        raise DataError(f"no checkpoint in {run}; train first")
    saved = torch.load(path, weights_only=True)
    state = {  # whole numbers have no average
        name: saved["average"][f"module.{name}"] if value.is_floating_point() else value
        for name, value in saved["net"].items()
    }
    net.load_state_dict(state)
    return net.eval()


def read_pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """Every picture of `folder` as RGB, at most 800 pixels wide or high."""
    pictures = []
    for path in sorted(folder.iterdir()):
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is not None:
            part = min(1.0, 800 / max(bgr.shape[:2]))
            small = cv2.resize(bgr, None, fx=part, fy=part, interpolation=cv2.INTER_AREA)
            pictures.append(np.ascontiguousarray(small[:, :, ::-1], np.uint8))
    if not pictures:
        raise DataError(f"no pictures in {folder}")
    return pictures


def crop_maker(faces: face_data.FaceSet, backgrounds: Path) -> CropMaker:
    """The source of landmark training crops."""
    mirror = face_data.mirror_points(faces.landmarks)
    return CropMaker(faces, read_pictures(backgrounds), mirror, mirror_scores())


@app.command()
def gather(
    chunks: Annotated[
        Path, typer.Option(help="folder of drawn faces (engine.training.data.faces)")
    ],
    out: Faces,
    stills: Annotated[Path | None, typer.Option(help="tar file of single pictures")] = None,
    landmarker: Annotated[Path | None, typer.Option(help="face_landmarker.task")] = None,
) -> None:
    """Cut the faces out of the drawn pictures, and label and cut single ones."""
    typer.echo(f"{face_data.gather(out, chunks, stills, landmarker)} files in {out}")


@app.command()
def landmarks(
    faces: Faces, backgrounds: Backgrounds, out: Out, steps: int = 5000, batch: int = 32,
    rate: float = 2e-3, seed: int = 0, threads: int = 1,
) -> None:  # fmt: skip
    """Train the landmark net."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data, _ = face_data.load(faces).split()
    maker = crop_maker(data, backgrounds)
    net = LandmarkNet()
    sample = np.random.default_rng(seed)
    shapes = [maker.batch(sample, batch).landmarks for _ in range(64)]
    net.start_from(torch.from_numpy(np.concatenate(shapes)), maker.mirror_points)
    run = Run(net, out, steps, rate)
    weights = point_weights()

    def loss(rng: np.random.Generator) -> dict[str, Tensor]:
        crops = maker.batch(rng, batch)
        return landmark_loss(net(torch.from_numpy(crops.images)), crops, weights)

    run.train(loss, seed)


@app.command()
def detector(
    faces: Faces, backgrounds: Backgrounds, out: Out, steps: int = 3000, batch: int = 32,
    rate: float = 2e-3, seed: int = 0, threads: int = 1,
) -> None:  # fmt: skip
    """Train the face detector on scenes put together from faces and pictures without any."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data, _ = face_data.load(faces).split()
    maker = SceneMaker(data, read_pictures(backgrounds))
    net = DetectorNet()
    run = Run(net, out, steps, rate)

    def loss(rng: np.random.Generator) -> dict[str, Tensor]:
        scenes = maker.batch(rng, batch)
        return detector_loss(net(torch.from_numpy(scenes.images)), scenes)

    run.train(loss, seed)


@app.command()
def sheet(faces: Faces, backgrounds: Backgrounds, out: Path, seed: int = 0) -> None:
    """Write OUT, a picture of 24 landmark crops and 24 detector scenes with their labels drawn."""
    data, _ = face_data.load(faces).split()
    rng = np.random.default_rng(seed)
    crops = crop_maker(data, backgrounds).batch(rng, 24)
    scenes = SceneMaker(data, read_pictures(backgrounds)).batch(rng, 24)
    tiles = []
    for image, points, present in zip(crops.images, crops.landmarks, crops.present, strict=True):
        for x, y in points * CROP if present else []:
            cv2.circle(image, (int(x), int(y)), 0, (0, 255, 0), -1)
        tiles.append(image)
    for image, squares in zip(scenes.images, scenes.squares, strict=True):
        for x, y, side in squares:
            low, high = (
                (int(x - side / 2), int(y - side / 2)),
                (int(x + side / 2), int(y + side / 2)),
            )
            cv2.rectangle(image, low, high, (0, 255, 0), 1)
        tiles.append(cv2.resize(image, (CROP, CROP)))
    rows = [np.hstack(tiles[i : i + 8]) for i in range(0, 48, 8)]
    cv2.imwrite(str(out), np.vstack(rows)[:, :, ::-1])


if __name__ == "__main__":
    app()
