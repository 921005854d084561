"""The paper's ablations on drawn people: what each changes, what is measured, and one run end to end."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchmetrics")

import torch

from engine.errors import ConfigError, DataError
from engine.evaluation import published
from engine.evaluation.ablations.command import CONFIG, make, plan_of, results_at, shown
from engine.evaluation.ablations.drawn import People, traits
from engine.evaluation.ablations.measure import held_out_batch, mouth_follows, steadiness
from engine.evaluation.ablations.results import (
    FILE,
    Results,
    cell,
    columns,
    lines,
    number,
    printed_lines,
    verdict,
)
from engine.evaluation.ablations.runs import Plan
from engine.evaluation.ablations.variants import (
    FULL,
    VARIANTS,
    Encoder,
    configuration,
    read_recipe,
    write_configuration,
)
from engine.training.data.drawn_clips import Pen, landmarks_of, paint, talk
from engine.training.data.drawn_person import DrawnPerson
from engine.training.portraittalk.roll_out import fixed_roll_out
from engine.training.portraittalk.stage_config import load_run_config

pytestmark = pytest.mark.train

SWITCHES: dict[str, dict[str, Any]] = {
    "unified-attention": {"attention": "unified"},
    "without-face-encoder": {},
    "one-reference": {"references": "first"},
    "without-placement-guidance": {"placement": False},
    "without-temporal-attention": {"temporal": False},
    FULL: {},
}


ATTENDED = {"cross-attention": {"injection": "cross_attention"}}


@pytest.mark.parametrize("name", SWITCHES | ATTENDED)
def test_a_variant_changes_its_switch_and_nothing_else(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(CONFIG)
    clips: dict[Encoder, Path] = {"traits": tmp_path / "traits", "clip": tmp_path / "clip"}
    runs = {}
    for wanted in (FULL, name):
        path = tmp_path / f"{wanted}.toml"
        write_configuration(configuration(recipe, wanted, 2, clips), path)
        runs[wanted] = load_run_config(path)
    full, own = runs[FULL], runs[name]
    changed = dataclasses.replace(full.model.config(64), **(SWITCHES | ATTENDED)[name])
    assert own.model.config(64) == changed
    assert own.model.seed == full.model.seed == 2
    assert own.run == tmp_path / name
    encoder: Encoder = "clip" if name == "without-face-encoder" else "traits"
    assert own.data == dataclasses.replace(full.data, clips=clips[encoder])
    assert own.data.references == 2
    for stage in ("codec", "identity", "animate", "joint"):
        assert own.stage(stage) == full.stage(stage)
        assert own.stage(stage).seed == 2


def test_the_rows_are_the_papers() -> None:
    assert list(VARIANTS) == list(published.TABLE_2["HDTF"]) == list(SWITCHES)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"temporal": False}, "temporal is for the ablations to set"),
        ({"size": "tiny"}, "wanted one of"),
    ],
)
def test_a_recipe_that_ablates_itself_is_refused(
    table: dict[str, object], words: str, tmp_path: Path
) -> None:
    recipe = copy.deepcopy(read_recipe(CONFIG))
    recipe["model"] |= table
    write_configuration(recipe, tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match=words):
        read_recipe(tmp_path / "mine.toml")


def test_traits_tell_faces_apart_and_see_no_clothes() -> None:
    people = [DrawnPerson.draw(seed) for seed in range(6)]
    told = np.stack([traits(p) for p in people])
    alike = told @ told.T
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-5)
    assert alike[~np.eye(6, dtype=bool)].max() < 0.99
    dressed = dataclasses.replace(people[0], coat=(1, 2, 3), wall=(4, 5, 6))
    np.testing.assert_array_equal(traits(dressed), told[0])


def test_a_mouth_follows_the_drawing_or_not() -> None:
    pen, person = Pen.load(64), DrawnPerson.draw(3)
    faces, poses = talk(12, 3)
    moves = zip(faces, poses, strict=True)
    points = np.stack([landmarks_of(person, pen.shape, pen.basis, f, p) for f, p in moves])
    frames = np.stack([paint(person, row, 64, person.wall) for row in points])
    assert mouth_follows(frames, points) > 0.8
    assert mouth_follows(255 - frames, points) < -0.8
    assert mouth_follows(np.full_like(frames, 90), points) == 0


def test_steady_motion_changes_and_does_not_flicker() -> None:
    at = np.arange(8, dtype=np.uint8)[:, None, None, None]
    ramp = np.broadcast_to(10 * at, (8, 6, 6, 3))
    blinking = np.broadcast_to(40 * (at % 2), (8, 6, 6, 3))
    assert steadiness(ramp) == pytest.approx({"change": 10, "flicker": 0}, abs=1e-3)
    assert steadiness(blinking) == pytest.approx({"change": 40, "flicker": 80}, abs=1e-3)


def results(shift: float) -> Results:
    """Two seeds of two people: every variant is worse than full by `shift`."""
    rows = [
        {
            "variant": name,
            "seed": seed,
            "people": {
                who: {"psnr": 20 + seed + 2 * i - (0 if name == FULL else shift)}
                for i, who in enumerate(("a", "b"))
            },
            "whole": {"fid": 10.0 * (1 + seed)},
        }
        for name in VARIANTS
        for seed in (0, 1)
    ]
    return Results({"rows": rows, "references": {}, "notes": []})


def test_means_spreads_and_paired_differences() -> None:
    found = results(1.5)
    assert found.of_seeds(FULL, "psnr") == {0: 21.0, 1: 22.0}
    assert found.of_seeds("one-reference", "fid") == {0: 10.0, 1: 20.0}
    assert found.of_seeds(FULL, "adfd") == {}
    assert found.difference("one-reference", "psnr") == pytest.approx((-1.5, -1.5, -1.5, 4))
    assert found.difference("one-reference", "fid") == pytest.approx((0, 0, 0, 2))
    assert found.difference("one-reference", "ssim") is None
    assert cell(found, FULL, "psnr") == "21.50 ± 0.707"
    assert cell(found, FULL, "adfd") == "no face"
    assert cell(found, FULL, "sync_c") == "not run"
    assert cell(Results(found.data | {"rows": []}), FULL, "psnr") == "not trained"


def test_a_difference_is_shown_by_more_than_one_seed() -> None:
    found = results(1.5)
    assert verdict(found, "one-reference", "psnr") == "differs"
    assert verdict(found, "one-reference", "fid") == "no difference shown"
    first = [row for row in found.data["rows"] if row["seed"] == 0]
    alone = Results(found.data | {"rows": first})
    assert verdict(alone, "one-reference", "psnr") == "one seed, nothing shown"
    for row in first:
        row["people"] = {who: {"psnr": 21.0} for who in row["people"]}
    assert verdict(found, "one-reference", "psnr") == "no difference shown"


def test_choices_stand_below_the_papers_rows_and_what_nobody_measured_is_no_column() -> None:
    found = results(1.5)
    titles = [title for title, _ in lines(found)]
    assert titles[-1] == "full"
    assert "flicker" not in columns(found)
    mine = {
        "variant": "start-last-0.5",
        "seed": 0,
        "people": {"a": {"psnr": 20.0, "flicker": 3.0}},
        "whole": {},
    }
    more = Results(found.data | {"rows": [*found.data["rows"], mine]})
    assert [title for title, _ in lines(more)] == [*titles, "begun from the frame before, 0.5"]
    assert columns(more) == [*columns(found), "flicker"]
    assert lines(more)[-1][1][-1] == "3.000"
    half = [row for row in more.data["rows"] if row["variant"] in (FULL, "start-last-0.5")]
    alone = Results(more.data | {"rows": half})  # of what nobody asked for, no row says so
    assert [title for title, _ in lines(alone)] == [
        *titles[:2],
        "full",
        "begun from the frame before, 0.5",
    ]
    assert [title for title, _ in printed_lines(alone)] == ["full"]


def two_steps(tmp_path: Path) -> Plan:
    """Every stage of two steps, on the smallest sizes that there are."""
    recipe = copy.deepcopy(read_recipe(CONFIG))
    recipe["data"] |= {"size": 32, "reference_gap": 1}
    recipe["model"]["width"] = 0
    recipe["train"] |= {"batch": 1, "samples": 1, "sample_steps": 1}
    for stage in ("codec", "identity", "animate", "joint"):
        recipe[stage]["steps"] = 2
    write_configuration(recipe, tmp_path / "two.toml")
    people = People(trained=1, held_out=2, frames=5, size=32)
    return plan_of(tmp_path / "out", config=tmp_path / "two.toml", seeds=1, people=people)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "names",
    [("without-face-encoder",), pytest.param(tuple(VARIANTS), marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_one_command_goes_from_nothing_to_the_table(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # Inception is a download; here it cannot be brought
    said: list[str] = []
    plan = dataclasses.replace(two_steps(tmp_path), variants=names)
    found = make(plan, tmp_path / "store", said.append, quiet=True)
    count = 1 + 3 * len(names)
    assert f"{count} of {count} stages" in "\n".join(said)
    assert sum("minutes left" in line for line in said) == count
    for name in names:
        assert 0 < found.of_seeds(name, "psnr")[0] < 40
        assert found.of_seeds(name, "fid") == {}
    assert any("could not download" in note for note in found.data["notes"])
    assert any("random weights" in note for note in found.data["notes"])
    weights = [plan.out / "runs" / "0" / n / "joint" / "weights.safetensors" for n in names]
    assert len({path.read_bytes() for path in weights}) == len(names)

    said.clear()
    again = make(plan, tmp_path / "store", said.append, quiet=True)
    assert again.data["rows"] == found.data["rows"]
    assert not said, "nothing was drawn or trained again"
    read = results_at(plan.out / FILE, tmp_path / "store", said.append)
    assert read.data == json.loads((plan.out / FILE).read_text())
    page = shown(read, plan.out / FILE)
    for value in (
        number(found.of_seeds(names[0], "psnr")[0]),
        "27.495",
        "not run",
        "data:image/png",
    ):
        assert value in page
    with pytest.raises(ConfigError, match="begun with another recipe"):
        make(dataclasses.replace(plan, people=People()), tmp_path / "store", said.append)
    with pytest.raises(DataError, match="holds no results"):
        results_at(plan.out / "recipe.json", tmp_path / "store", said.append)


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="variant 'half': wanted some of unified-attention"):
        dataclasses.replace(two_steps(tmp_path), variants=("half",))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(300)
def test_a_start_from_the_last_frame_is_sampled_with_the_full_systems_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said: list[str] = []
    names = ("start-last-0.5", "cross-attention", FULL)
    plan = dataclasses.replace(two_steps(tmp_path), variants=names)
    found = make(plan, tmp_path / "store", said.append, quiet=True)
    assert "7 of 7 stages" in said[1]  # the codec, and three each of two systems
    assert {row["variant"] for row in found.data["rows"]} == set(names)
    assert all("later" in values for row in found.data["rows"] for values in row["people"].values())
    assert plan.config(0, "start-last-0.5") == plan.config(0, FULL)

    system, batch, _ = held_out_batch(plan.config(0, FULL))
    asked: list[torch.Tensor] = []
    evaluate = system.evaluate

    def counting(*args: Any) -> Any:
        asked.append(args[1])
        return evaluate(*args)

    monkeypatch.setattr(system, "evaluate", counting)
    monkeypatch.setattr(system, "decode", lambda z: z)  # two steps of training draw all black
    fresh = fixed_roll_out(system, batch, 4)
    assert len(asked) == 4 * len(fresh)
    begun = fixed_roll_out(system, batch, 4, strength=0.5)
    assert len(asked) == 4 * len(fresh) + 4 + 2 * (len(fresh) - 1)
    torch.testing.assert_close(begun[0], fresh[0])  # nothing was before it
    assert all((b - f).abs().max() > 0.01 for b, f in zip(begun[1:], fresh[1:], strict=True))
