"""Trains the face detector and the landmark net: `python -m engine.training.face --help`.

    gather      cut and label the faces (once, or again while images are still being drawn)
    landmarks   train the landmark net
    detector    train the face detector
    lips-gather  cut mouths, as they are and covered by things that are drawn over them
    lips        train the lip net on them
    lips-rates  how often it is right on others
    sheet       an image of training examples to look at

Training can be stopped and started again with the same command: it goes on from its last
checkpoint, with whatever faces are there by then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.backends import load_backend
from engine.errors import DataError
from engine.face.detector import CROP, DETECTOR, LANDMARKS, FaceReader
from engine.nets.face import DetectorNet, LandmarkNet, LipNet, mirror_scores
from engine.outputs import own_folder
from engine.training.checkpoints import CHECKPOINT
from engine.training.data.labeller import Labeller
from engine.training.face import dataset as face_data
from engine.training.face import lips as lip_data
from engine.training.face.crops import CropMaker
from engine.training.face.loss import detector_loss, landmark_loss, point_weights
from engine.training.face.scenes import SceneMaker
from engine.training.loop import LoopSettings, Smoothed, Values, is_due, run_loop
from engine.training.net_trainer import Keys, NetPlan, NetTrainer

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

SAVE_EVERY = 200
KEYS = Keys(net="net", mean="average", optimiser="optimizer", prefix="module.")
PartsOfLoss = Callable[[np.random.Generator], dict[str, Tensor]]

Faces = Annotated[Path, typer.Option(help="folder that `gather` wrote")]
Backgrounds = Annotated[Path, typer.Option(help="folder of images that show no human face")]
Out = Annotated[Path, typer.Option(help="folder of the run: checkpoint and log")]


class Log:
    """Writes the running means of the losses into `log.jsonl` of a run folder."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._path, self._steps = folder / "log.jsonl", steps
        self._smooth, self._began = Smoothed(), time.monotonic()

    def __call__(self, step: int, values: Values) -> Values:
        """Take a step's values in; their running means."""
        smooth = self._smooth(step, values)
        if is_due(step, SAVE_EVERY, self._steps):
            row = {"step": step, "seconds": round(time.monotonic() - self._began), **smooth}
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return smooth


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceTraining:
    """One training run."""

    steps: int
    rate: float = 2e-3
    seed: int = 0


def face_trainer(
    net: nn.Module, parts_of: PartsOfLoss, settings: FaceTraining, out: Path
) -> NetTrainer:
    """The run in folder `out`, or a new one; `parts_of` draws a batch.

    Raises:
        DataError: `out` holds another network.
        ConfigError: it holds files of somebody else.
    """
    own_folder(out, earlier=(out / CHECKPOINT).exists())
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(settings.seed * 1_000_003 + step)  # a resumed run equals an unbroken one
        parts = parts_of(np.random.default_rng([settings.seed, step]))
        return torch.stack(list(parts.values())).sum(), parts

    plan = NetPlan(steps=settings.steps, warm_up=100, floor=0.01, ema=0.998, clip=5.0, keys=KEYS)
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=0.02)
    return NetTrainer(net, optimiser, loss, plan, out / CHECKPOINT)


def _run(trainer: NetTrainer, out: Path, name: str) -> None:
    loop = LoopSettings(name=name, steps=trainer.plan.steps, save_every=SAVE_EVERY)
    run_loop(trainer, out / CHECKPOINT, loop, Log(out, loop.steps))


def trained(net: nn.Module, run: Path) -> nn.Module:
    """Put the averaged weights of checkpoint folder `run` into `net`, ready to use.

    Raises:
        DataError: there is no checkpoint.
    """
    path = run / CHECKPOINT
    if not path.exists():
        raise DataError(f"no checkpoint in {run}; train first")
    saved = torch.load(path, weights_only=True)
    state = {  # whole numbers have no average
        name: saved["average"][f"module.{name}"] if value.is_floating_point() else value
        for name, value in saved["net"].items()
    }
    net.load_state_dict(state)
    return net.eval()


def read_images(folder: Path) -> list[NDArray[np.uint8]]:
    """Every image of `folder` as RGB (H, W, 3), at most 800 pixels wide or high.

    Raises:
        DataError: there is none.
    """
    images = []
    for path in sorted(folder.iterdir()):
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is not None:
            part = min(1.0, 800 / max(bgr.shape[:2]))
            small = cv2.resize(bgr, None, fx=part, fy=part, interpolation=cv2.INTER_AREA)
            images.append(np.ascontiguousarray(small[:, :, ::-1], np.uint8))
    if not images:
        raise DataError(f"no images in {folder}")
    return images


def crop_maker(faces: face_data.FaceSet, backgrounds: Path) -> CropMaker:
    """The source of landmark training crops."""
    mirror = face_data.mirror_points(faces.landmarks)
    return CropMaker(faces, read_images(backgrounds), mirror, mirror_scores())


@app.command()
def gather(
    chunks: Annotated[
        Path, typer.Option(help="folder of drawn faces (engine.training.data.faces)")
    ],
    out: Faces,
    stills: Annotated[Path | None, typer.Option(help="tar file of single images")] = None,
    landmarker: Annotated[Path | None, typer.Option(help="face_landmarker.task")] = None,
) -> None:
    """Cut the faces out of the drawn images, and label and cut single ones."""
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
    weights = point_weights()

    def parts_of(rng: np.random.Generator) -> dict[str, Tensor]:
        crops = maker.batch(rng, batch)
        return landmark_loss(net(torch.from_numpy(crops.images)), crops, weights)

    settings = FaceTraining(steps=steps, rate=rate, seed=seed)
    _run(face_trainer(net, parts_of, settings, out), out, "landmarks")


@app.command()
def detector(
    faces: Faces, backgrounds: Backgrounds, out: Out, steps: int = 3000, batch: int = 32,
    rate: float = 2e-3, seed: int = 0, threads: int = 1,
) -> None:  # fmt: skip
    """Train the face detector on scenes put together from faces and images without any."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data, _ = face_data.load(faces).split()
    maker = SceneMaker(data, read_images(backgrounds))
    net = DetectorNet()

    def parts_of(rng: np.random.Generator) -> dict[str, Tensor]:
        scenes = maker.batch(rng, batch)
        return detector_loss(net(torch.from_numpy(scenes.images)), scenes)

    settings = FaceTraining(steps=steps, rate=rate, seed=seed)
    _run(face_trainer(net, parts_of, settings, out), out, "detector")


@app.command()
def lips_gather(
    source: Annotated[Path, typer.Option(help="tar file or folder of portraits")],
    out: Annotated[Path, typer.Option(help=".npz to write")],
    weights: Annotated[Path, typer.Option(help="folder with detector.onnx and landmarks.onnx")],
    landmarker: Annotated[Path, typer.Option(help="face_landmarker.task")],
    copies: Annotated[int, typer.Option(help="covered versions of each")] = 6,
    seed: int = 0,
) -> None:
    """Cut the mouths of portraits for the lip net, as they are and covered."""
    backend = load_backend("openvino", threads=1)
    nets = (backend.load(spec, weights / f"{spec.name}.onnx") for spec in (DETECTOR, LANDMARKS))
    label = Labeller(landmarker)
    count = lip_data.gather(source, out, FaceReader(*nets), label, copies, seed)
    typer.echo(f"{count} mouths in {out}")


MouthFile = Annotated[Path, typer.Option(help="what `lips-gather` wrote")]


@app.command()
def lips(
    mouths: MouthFile, out: Out, steps: int = 4000, batch: int = 64, rate: float = 2e-3,
    seed: int = 0, threads: int = 1,
    leave_out: Annotated[Path | None, typer.Option(help="names of images, one a line")] = None,
) -> None:  # fmt: skip
    """Train the lip net."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    names = frozenset(leave_out.read_text().split()) if leave_out else frozenset()
    data = lip_data.Mouths.load(mouths, names)
    net = LipNet()

    def parts_of(rng: np.random.Generator) -> dict[str, Tensor]:
        return lip_data.lip_loss(net, lip_data.batch(rng, data, batch))

    settings = FaceTraining(steps=steps, rate=rate, seed=seed)
    _run(face_trainer(net, parts_of, settings, out), out, "lips")


@app.command()
def lips_rates(mouths: MouthFile, run: Out) -> None:
    """How much the trained lip net takes to be seen of other mouths, by what covers them."""
    data = lip_data.Mouths.load(mouths)
    for row in lip_data.rates(trained(LipNet(), run), data):
        typer.echo(row)


@app.command()
def sheet(faces: Faces, backgrounds: Backgrounds, out: Path, seed: int = 0) -> None:
    """Write OUT, an image of 24 landmark crops and 24 detector scenes with their labels drawn."""
    data, _ = face_data.load(faces).split()
    rng = np.random.default_rng(seed)
    crops = crop_maker(data, backgrounds).batch(rng, 24)
    scenes = SceneMaker(data, read_images(backgrounds)).batch(rng, 24)
    tiles = []
    for image, points, present in zip(crops.images, crops.landmarks, crops.present, strict=True):
        for x, y in points * CROP if present else []:
            cv2.circle(image, (int(x), int(y)), 0, (0, 255, 0), -1)
        tiles.append(image)
    for image, squares in zip(scenes.images, scenes.squares, strict=True):
        for x, y, side in squares:
            low = (int(x - side / 2), int(y - side / 2))
            high = (int(x + side / 2), int(y + side / 2))
            cv2.rectangle(image, low, high, (0, 255, 0), 1)
        tiles.append(cv2.resize(image, (CROP, CROP)))
    rows = [np.hstack(tiles[i : i + 8]) for i in range(0, 48, 8)]
    cv2.imwrite(str(out), np.vstack(rows)[:, :, ::-1])


if __name__ == "__main__":
    app()
