"""The painter's networks learn, resume exactly, and use what they are told to use."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.diffusion.flow import sampling_times
from engine.errors import DataError
from engine.nets.painter import Cache, Painter
from engine.training.net_trainer import NetTrainer
from engine.training.painter.evaluate import evaluate, sheet
from engine.training.painter.loss import PainterLoss, PainterTraining
from engine.training.painter.pairs import PATCH, Face, Pairs, load_people, mirror_order
from engine.training.painter.train import Feed, batch_of, painter_trainer

pytestmark = pytest.mark.train


class Blurred(nn.Module):
    """Stands in for the perceptual distance, whose weights are a download."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (F.avg_pool2d(a, 4) - F.avg_pool2d(b, 4)).abs().mean((1, 2, 3))


def person(seed: int) -> list[Face]:
    """Four images of a drawn face whose mouth opens more and more."""
    rng = np.random.RandomState(seed)
    skin, lips = rng.randint(120, 220, 3), rng.randint(60, 120, 3)
    base = rng.uniform(0.2, 0.8, (478, 2)).astype(np.float32) * PATCH
    base[[33, 263, 2]] = np.array([(0.25, 0.1), (0.75, 0.1), (0.5, 0.35)]) * PATCH
    base[[10, 152]] = np.array([(0.5, 0.02), (0.5, 0.9)]) * PATCH
    faces = []
    for opening in (2, 6, 12, 20):
        points = base.copy()
        points[[13, 14, 61, 291]] = [
            (96, 110 - opening / 2),
            (96, 110 + opening / 2),
            (76, 110),
            (116, 110),
        ]
        patch = np.full((PATCH, PATCH, 3), skin, np.uint8)
        cv2.ellipse(patch, (96, 110), (24, opening // 2 + 6), 0, 0, 360, lips.tolist(), -1)
        cv2.ellipse(patch, (96, 110), (18, opening // 2), 0, 0, 360, (20, 10, 10), -1)
        faces.append(Face(patch, points, np.zeros(3, np.float32)))
    return faces


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    people = [person(i) for i in range(3)]
    return Pairs(people, np.arange(478))


SETTINGS = PainterTraining(steps=40, codec_steps=8, batch=2, warm_up=4, rate=1e-3, cold=0.5)


def trainer_of(
    pairs: Pairs, path: Path, settings: PainterTraining = SETTINGS, start: Path | None = None
) -> NetTrainer:
    batches = lambda step: batch_of(pairs, settings, step)
    return painter_trainer(settings, Blurred(), batches, path, start)


def run(trainer: NetTrainer, until: int) -> list[dict[str, float]]:
    return [trainer.train_step() for _ in range(trainer.step, until)]


def test_a_resumed_run_equals_an_unbroken_one(pairs: Pairs, tmp_path: Path) -> None:
    """Over the step at which the codec's phase ends."""
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, codec_steps=1, rolled_steps=(2,), batch=1)
    whole = trainer_of(pairs, tmp_path / "none.pt", settings)
    log = run(whole, 4)
    assert "latent" not in log[0], "the codec comes first"
    assert "latent" in log[-1]

    path = tmp_path / "painter.pt"
    broken = trainer_of(pairs, path, settings)
    run(broken, 2)
    broken.save(path)
    again = trainer_of(pairs, path, settings)
    assert again.step == 2
    assert run(again, 4)[-1] == pytest.approx(log[-1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("codec_steps", [0, 1000])
def test_both_phases_learn_a_batch_by_heart(pairs: Pairs, codec_steps: int, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, codec_steps=codec_steps)
    check_learning(pairs, settings, tmp_path, steps=20, factor=0.8)


@pytest.mark.parametrize("codec_steps", [0, 1000])
def test_both_phases_begin_to_learn_a_batch(pairs: Pairs, codec_steps: int, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, codec_steps=codec_steps, rolled_steps=(2,))
    check_learning(pairs, settings, tmp_path, steps=6, factor=0.97)


def check_learning(
    pairs: Pairs, settings: PainterTraining, tmp_path: Path, steps: int, factor: float
) -> None:
    batch = batch_of(pairs, settings, 0)
    trainer = painter_trainer(settings, Blurred(), lambda step: batch, tmp_path / "painter.pt")
    log = run(trainer, steps)
    assert all(np.isfinite(list(row.values())).all() for row in log)
    losses = [row["l1"] for row in log]
    assert np.mean(losses[-3:]) < factor * np.mean(losses[:3])


def test_a_rolled_step_stands_where_the_sampler_would(pairs: Pairs) -> None:
    """Training on its own first steps must see exactly what inference gives it."""
    settings = dataclasses.replace(SETTINGS, rolled_steps=(2,))
    net, batch = shaken(Painter()), pairs.batch(2, np.random.RandomState(0))
    loss = PainterLoss(net, settings, Blurred())
    with torch.no_grad():
        reference = net.enroll(batch.reference)
        landmarks = (batch.reference_landmarks, batch.target_landmarks)
        condition = net.condition(batch.reference, reference, *landmarks, batch.target_placement)
        cache, noise = net.cold(reference), net.noise(2)
        guidance = net.guide(condition, cache)
        z_t, t = loss.rolled(noise, guidance, reference, cache)
        last = net.denoise(z_t, t, guidance, reference, cache)
        whole = net.sample(condition, reference, cache, noise, steps=2)[2]
    assert t.tolist() == pytest.approx([sampling_times(2)[1]] * 2)
    torch.testing.assert_close(last.latents, whole.latents)


def test_the_encoder_is_frozen_once_the_codec_stands(pairs: Pairs, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, codec_steps=1)
    trainer = trainer_of(pairs, tmp_path / "painter.pt", settings)

    def encoder() -> list[Tensor]:
        weights = trainer.net.state_dict()
        return [t.clone() for name, t in weights.items() if name.startswith("encoder.")]

    first = encoder()
    run(trainer, 1)
    stands = encoder()
    assert not all(torch.equal(a, b) for a, b in zip(first, stands, strict=True))
    run(trainer, 2)
    assert all(torch.equal(a, b) for a, b in zip(stands, encoder(), strict=True))


def test_batches_drawn_ahead_are_those_of_their_steps(pairs: Pairs) -> None:
    feed = Feed(pairs, SETTINGS)
    for step in (3, 4, 5):
        assert torch.equal(feed(step).target, batch_of(pairs, SETTINGS, step).target)


def test_evaluation_and_sheet(pairs: Pairs, tmp_path: Path) -> None:
    fixed = Pairs(pairs.people[:1], pairs.mirror, augment=False).fixed()
    table = evaluate(Painter().eval(), fixed, Blurred(), steps=(1, 2))
    assert list(table) == ["warp alone", "1 step", "2 step", "codec bound"]
    assert all(np.isfinite(list(row.values())).all() for row in table.values())
    sheet(Painter().eval(), fixed, tmp_path / "sheet.png", rows=1)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (128, 5 * 128, 3)


def shaken(painter: Painter) -> Painter:
    """Weights away from their zero starts, so that every path carries something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in painter.parameters():
            p.add_(0.03 * torch.randn_like(p))
    return painter.eval()


@pytest.mark.parametrize(
    "changed", ["previous latents", "previous keys", "identity", "placement", "noise"]
)
def test_every_condition_reaches_the_frame(pairs: Pairs, changed: str) -> None:
    net, batch = shaken(Painter()), pairs.batch(1, np.random.RandomState(0))
    with torch.no_grad():
        reference = net.enroll(batch.reference)
        landmarks = (batch.reference_landmarks, batch.target_landmarks)
        placement, noise = batch.target_placement, net.noise(1)
        condition = net.condition(batch.reference, reference, *landmarks, placement)
        cache = net.cold(reference)
        plain = net.sample(condition, reference, cache, noise)[0]
        if changed == "previous latents":
            cache = Cache(-cache.latents, cache.keys)
        elif changed == "previous keys":
            cache = Cache(cache.latents, tuple(-k for k in cache.keys))
        elif changed == "identity":
            reference = type(reference)(reference.latents, reference.keys, -reference.identity)
        elif changed == "placement":
            condition = net.condition(batch.reference, reference, *landmarks, placement + 1)
        else:
            noise = net.noise(1, seed=5)
        other = net.sample(condition, reference, cache, noise)[0]
    assert (other - plain).abs().max() > 1e-5


def test_more_steps_refine_the_same_sample(pairs: Pairs) -> None:
    net, batch = shaken(Painter()), pairs.batch(1, np.random.RandomState(0))
    with torch.no_grad():
        reference = net.enroll(batch.reference)
        condition = net.condition(
            batch.reference,
            reference,
            batch.reference_landmarks,
            batch.target_landmarks,
            batch.target_placement,
        )
        noise = net.noise(1)
        once, many = (
            net.sample(condition, reference, net.cold(reference), noise, n)[2].latents
            for n in (1, 25)
        )
    assert torch.isfinite(many).all()
    assert not torch.equal(once, many)


def test_mirroring_swaps_the_sides() -> None:
    points = np.random.default_rng(0).uniform(0, 190, (478, 2)).astype(np.float32)
    right = np.arange(0, 478, 2)  # every other point is its neighbour's mirror image
    points[right + 1] = points[right] * [-1, 1] + [192, 0]
    points[[33, 263]] = [(150, 60), (42, 60)]
    points[[32, 262]] = [(42, 60), (150, 60)]
    face = Face(np.zeros((PATCH, PATCH, 3), np.uint8), points, np.zeros(3, np.float32))
    partner = mirror_order([[face]])
    plain = np.setdiff1d(right, [32, 262])
    np.testing.assert_array_equal(partner[plain], plain + 1)
    np.testing.assert_array_equal(partner[plain + 1], plain)


def test_an_empty_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no chunk"):
        load_people(tmp_path)


def test_a_new_run_can_start_from_published_weights(pairs: Pairs, tmp_path: Path) -> None:
    torch.manual_seed(3)
    kept = shaken(Painter())
    save_file(
        {n: t.half().contiguous() for n, t in kept.state_dict().items()}, tmp_path / "p.safetensors"
    )
    trainer = trainer_of(pairs, tmp_path / "painter.pt", start=tmp_path / "p.safetensors")
    for weights in (trainer.net.state_dict(), trainer.averaged()):
        for name, tensor in kept.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, atol=2e-3, rtol=2e-3)
