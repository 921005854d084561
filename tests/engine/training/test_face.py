from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import DataError  # noqa: E402
from engine.face.detector import DETECTOR, LANDMARKS, SCORE_NAMES  # noqa: E402
from engine.face.topology import POINTS  # noqa: E402
from engine.nets.face import (  # noqa: E402
    DetectorNet,
    LandmarkNet,
    MirroredLandmarkNet,
    mirror_scores,
)
from engine.training.checkpoints import CHECKPOINT  # noqa: E402
from engine.training.face.crops import Crops  # noqa: E402
from engine.training.face.loss import (  # noqa: E402
    detector_loss,
    landmark_loss,
    point_weights,
    wing_loss,
)
from engine.training.face.scenes import Scenes, cell_targets  # noqa: E402
from engine.training.face.train import FaceTraining, Log, face_trainer, trained  # noqa: E402
from engine.training.loop import LoopSettings, run_loop  # noqa: E402

pytestmark = pytest.mark.train


def crops(present: list[float]) -> Crops:
    n = len(present)
    rng = np.random.default_rng(0)
    return Crops(
        np.zeros((n, 192, 192, 3), np.uint8),
        rng.random((n, POINTS, 2), np.float32),
        rng.random((n, len(SCORE_NAMES)), np.float32),
        rng.random((n, 2), np.float32),
        np.array(present, np.float32),
    )


def test_mirror_scores_swaps_sides_only() -> None:
    swap = mirror_scores()
    assert (swap[swap] == np.arange(len(SCORE_NAMES))).all()
    assert SCORE_NAMES[swap[SCORE_NAMES.index("jawLeft")]] == "jawRight"
    assert SCORE_NAMES[swap[SCORE_NAMES.index("jawOpen")]] == "jawOpen"


def test_nets_have_the_shapes_of_their_specs() -> None:
    image, crop = (
        torch.zeros(s.inputs[0].sized(3), dtype=torch.uint8) for s in (DETECTOR, LANDMARKS)
    )
    cells = DetectorNet().eval()(image)
    assert cells.shape == DETECTOR.outputs[0].sized(3)
    for spec, out in zip(
        LANDMARKS.outputs, MirroredLandmarkNet(LandmarkNet()).eval()(crop), strict=True
    ):
        assert out.shape == spec.sized(3), spec.name


def test_mirrored_net_reads_a_mirrored_crop_mirrored() -> None:
    torch.manual_seed(0)
    net = LandmarkNet()
    partner = np.arange(POINTS)
    partner[[3, 7]] = partner[[7, 3]]
    shapes = torch.rand(200, POINTS, 2)
    net.start_from(shapes, partner)
    both = MirroredLandmarkNet(net).eval()
    crop = torch.randint(0, 256, LANDMARKS.inputs[0].sized(2), dtype=torch.uint8)
    with torch.no_grad():
        points, scores, pose, presence = both(crop)
        again = both(crop.flip(2))
    torch.testing.assert_close(again[0][..., 0], 1 - points[:, partner, 0])
    torch.testing.assert_close(again[0][..., 1], points[:, partner, 1])
    torch.testing.assert_close(again[1], scores[:, mirror_scores()])
    torch.testing.assert_close(again[2], pose * torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(again[3], presence)


def test_start_from_spans_the_shapes() -> None:
    net = LandmarkNet()
    rng = torch.Generator().manual_seed(0)
    axes = torch.randn(5, POINTS * 2, generator=rng)
    shapes = (torch.randn(300, 5, generator=rng) @ axes).reshape(-1, POINTS, 2)
    net.start_from(shapes, np.arange(POINTS))
    new = shapes[0].flatten() - net.points.bias
    main = net.points.weight.detach()[:, :5]  # the shapes have five dimensions
    found = torch.linalg.lstsq(main, new.detach()[:, None]).solution
    torch.testing.assert_close((main @ found)[:, 0], new.detach(), atol=1e-2, rtol=1e-3)


def test_wing_loss_is_even_continuous_and_growing() -> None:
    error = torch.linspace(-20, 20, 4001)
    loss = wing_loss(error)
    torch.testing.assert_close(loss, loss.flip(0), atol=1e-4, rtol=1e-4)
    assert float(loss[2000]) == pytest.approx(0, abs=1e-5)
    steps = loss[2001:] - loss[2000:-1]
    assert (steps > 0).all()
    assert float(steps.max()) < 0.05


def test_crops_without_a_face_only_teach_presence() -> None:
    batch = crops([1, 0])
    out = (
        torch.from_numpy(batch.landmarks).clone(),
        torch.from_numpy(batch.scores).clone(),
        torch.from_numpy(batch.angles).clone(),
        torch.zeros(2, 1),
    )
    for part in out[:3]:
        part[1] += 5
    loss = landmark_loss(out, batch, point_weights())
    assert [float(loss[k]) for k in ("points", "scores", "angles")] == [0, 0, 0]
    assert float(loss["presence"]) == pytest.approx(2 * np.log(2), rel=1e-5)


def test_detector_loss_prefers_the_truth() -> None:
    squares = [(60.0, 80.0, 50.0), (130.0, 30.0, 20.0)]
    heat, boxes, near = cell_targets(squares)
    scenes = Scenes(np.zeros((1, 160, 160, 3), np.uint8), heat[None], boxes[None], near[None], [])
    truth = np.concatenate([np.where(heat >= 1, 9, -9)[None], boxes])[None].astype(np.float32)
    right = {k: float(v) for k, v in detector_loss(torch.from_numpy(truth), scenes).items()}
    moved = {
        k: float(v)
        for k, v in detector_loss(torch.from_numpy(np.roll(truth, 3, 3)), scenes).items()
    }
    assert right["box"] == 0
    assert right["score"] < 0.01
    assert moved["score"] > 10 * right["score"] + 1
    assert moved["box"] > 0


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.register_buffer("kept", torch.tensor([5, 477]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.dropout(x, 0.3)  # draws from torch's own generator
        return (self.weight * x).sum()


def fit(out: Path, *steps: int) -> Line:
    """Train in one go or in several, a new process each."""
    for last in steps:
        net = Line()

        def parts_of(rng: np.random.Generator, net: Line = net) -> dict[str, torch.Tensor]:
            x = torch.from_numpy(rng.standard_normal(3).astype(np.float32))
            return {"square": (net(x) - 1) ** 2}

        settings = FaceTraining(steps=max(steps), rate=0.1, seed=3)
        trainer = face_trainer(net, parts_of, settings, out)
        loop = LoopSettings(name="face", steps=last, save_every=100, quiet=True)
        run_loop(trainer, out / CHECKPOINT, loop, Log(out, last))
    result = trained(Line(), out)
    assert isinstance(result, Line)
    return result


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    whole, parts = fit(tmp_path / "a", 12), fit(tmp_path / "b", 5, 12)
    assert torch.equal(whole.weight, parts.weight)
    assert not torch.equal(whole.weight, torch.ones(3))
    assert whole.kept.tolist() == [5, 477]  # an average must not touch whole numbers
    rows = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 12]
    assert all(row["square"] >= 0 for row in rows)


def test_checkpoints_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They averaged by torch's own wrapper, which counts its updates."""
    net = Line()
    average = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
    net.weight.data.fill_(2.0)
    average.update_parameters(net)
    optimiser = torch.optim.AdamW(net.parameters(), 0.1)
    net(torch.ones(3)).backward()
    optimiser.step()
    state = {"net": net.state_dict(), "average": average.state_dict(), "step": 7}
    torch.save(state | {"optimizer": optimiser.state_dict()}, tmp_path / CHECKPOINT)
    assert trained(Line(), tmp_path).weight.tolist() == [2.0, 2.0, 2.0]
    again = face_trainer(Line(), lambda rng: {}, FaceTraining(steps=9), tmp_path)
    assert again.step == 7
    assert torch.equal(again.net.weight, net.weight)
    assert again.averaged()["weight"].tolist() == [2.0, 2.0, 2.0]


def test_export_of_an_untrained_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train first"):
        trained(Line(), tmp_path)
