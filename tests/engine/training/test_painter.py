"""The picture networks learn, resume exactly, and use what they are told to use."""

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
from engine.training.painter.pairs import PATCH, Face, Pairs, load_people, mirror_order
from engine.training.painter.train import PainterTraining, Trainer, batch_of, evaluate, sheet

pytestmark = pytest.mark.train


class Blurred(nn.Module):
    """Stands in for the perceptual distance, whose weights are a download."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (F.avg_pool2d(a, 4) - F.avg_pool2d(b, 4)).abs().mean((1, 2, 3))


def person(seed: int) -> list[Face]:
    """Four pictures of a drawn face whose mouth opens more and more."""
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


def run(pairs: Pairs, trainer: Trainer, until: int) -> list[dict[str, float]]:
    return [
        trainer.train_step(batch_of(pairs, SETTINGS, trainer.step))
        for _ in range(trainer.step, until)
    ]


@pytest.mark.timeout(400)
def test_a_resumed_run_equals_an_unbroken_one(pairs: Pairs, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = Trainer(SETTINGS, Blurred())
    log = run(pairs, whole, 16)
    assert "latent" not in log[0], "the codec comes first"
    assert "latent" in log[-1]

    broken = Trainer(SETTINGS, Blurred())
    run(pairs, broken, 11)
    broken.save(tmp_path / "painter.pt")
    again = Trainer(SETTINGS, Blurred())
    again.load(tmp_path / "painter.pt")
    assert again.step == 11
    assert run(pairs, again, 16)[-1] == pytest.approx(log[-1], rel=1e-4)


@pytest.mark.parametrize("codec_steps", [0, 1000])
def test_both_phases_learn_a_batch_by_heart(pairs: Pairs, codec_steps: int) -> None:
    settings = dataclasses.replace(SETTINGS, codec_steps=codec_steps)
    trainer, batch = Trainer(settings, Blurred()), batch_of(pairs, settings, 0)
    losses = [trainer.train_step(batch)["l1"] for _ in range(20)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_a_rolled_step_stands_where_the_sampler_would(pairs: Pairs) -> None:
    """Training on its own first steps must see exactly what inference gives it."""
    settings = dataclasses.replace(SETTINGS, rolled_steps=(2,))
    trainer, batch = Trainer(settings, Blurred()), pairs.batch(2, np.random.RandomState(0))
    net = shaken(trainer.net)
    with torch.no_grad():
        reference = net.enroll(batch.reference)
        landmarks = (batch.reference_landmarks, batch.target_landmarks)
        condition = net.condition(batch.reference, reference, *landmarks, batch.target_placement)
        cache, noise = net.cold(reference), net.noise(2)
        guidance = net.guide(condition, cache)
        z_t, t = trainer._rolled(noise, guidance, reference, cache)
        last = net.denoise(z_t, t, guidance, reference, cache)
        whole = net.sample(condition, reference, cache, noise, steps=2)[2]
    assert t.tolist() == pytest.approx([sampling_times(2)[1]] * 2)
    torch.testing.assert_close(last.latents, whole.latents)


def test_the_encoder_is_frozen_once_the_codec_stands(pairs: Pairs) -> None:
    trainer = Trainer(SETTINGS, Blurred())
    trainer.step = SETTINGS.codec_steps
    before = [p.clone() for p in trainer.net.encoder.parameters()]
    run(pairs, trainer, trainer.step + 1)
    after = list(trainer.net.encoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_evaluation_and_sheet(pairs: Pairs, tmp_path: Path) -> None:
    fixed = Pairs(pairs.people, pairs.mirror, augment=False).fixed()
    table = evaluate(Painter().eval(), fixed, Blurred(), steps=(1, 2))
    assert list(table) == ["warp alone", "1 step", "2 step", "codec bound"]
    assert all(np.isfinite(list(row.values())).all() for row in table.values())
    sheet(Painter().eval(), fixed, tmp_path / "sheet.png", rows=3)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (3 * 128, 5 * 128, 3)


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


def test_a_new_run_can_start_from_published_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    kept = shaken(Painter())
    save_file(
        {n: t.half().contiguous() for n, t in kept.state_dict().items()}, tmp_path / "p.safetensors"
    )
    trainer = Trainer(SETTINGS, Blurred())
    trainer.start_from(tmp_path / "p.safetensors")
    for net in (trainer.net, trainer.ema):
        for a, b in zip(net.parameters(), kept.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
