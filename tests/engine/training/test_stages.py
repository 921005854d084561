"""Every stage learns its clips by heart, and a killed run equals one that was not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.audio.speech_encoder import WIDTH
from engine.config import WEIGHTS as BUNDLED
from engine.errors import ConfigError, DataError
from engine.loaders.files import WrongFamily
from engine.loaders.trained import WEIGHTS, load_trained
from engine.motion.retarget import FaceBasis
from engine.training.checkpoints import CHECKPOINT
from engine.training.data.clips import PROMPT, Clip, load_clips
from engine.training.data.drawn_clips import write_drawn_clips
from engine.training.portraittalk.dataset import TalkData
from engine.training.portraittalk.diffusion_loss import NoiseSchedule, shifted
from engine.training.portraittalk.run_stage import build_system, distill, train
from engine.training.portraittalk.stage_config import (
    STAGES,
    DataSettings,
    ModelSettings,
    StageSettings,
    load_run_config,
    run_config,
)
from engine.training.portraittalk.stages import StageLoss, is_new, trained_names
from engine.training.portraittalk.start_weights import begin
from engine.training.portraittalk.system import TalkingSystem

pytestmark = pytest.mark.train
DEPTH = FaceBasis.load(BUNDLED / "tiny" / "basis.npz").depth
SIDE = 64


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_clips(folder, people=8, frames=4, size=SIDE)
    return folder


def config_file(folder: Path, clips: Path, name: str = "run", **tables: dict[str, Any]) -> Path:
    """A TOML file of a small run; `train` for all stages and any table more."""
    base: dict[str, dict[str, Any]] = {
        "data": {"clips": str(clips), "size": SIDE, "reference_gap": 1},
        "model": {"size": "small", "latents": "tiny"},
        "train": {"steps": 2, "batch": 2, "rate": 2e-3, "warm_up": 2, "ema": 0.9, "sample_steps": 2}
        | {"save_every": 100, "sample_every": 100, "samples": 2},
        "distill": {"frames": 2, "student_steps": 2, "perceptual": "random", "adversarial_from": 0},
    }
    merged = base | {k: base.get(k, {}) | v for k, v in tables.items()}
    lines = [f'run = "{name}"']
    for table, values in merged.items():
        lines += [f"[{table}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines))
    return path


def run(path: Path, stage: str) -> dict[str, float]:
    if stage == "distill":
        return distill(path, cpu=True, quiet=True)
    return train(path, stage, cpu=True, quiet=True)


def weights_of(path: Path, stage: str) -> dict[str, torch.Tensor]:
    folder = path.parent / path.stem / stage
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    return {f"{part}.{n}": t for part in ("weights", "mean") for n, t in state[part].items()}


def pretend_joint(path: Path) -> None:
    """Let distillation find a trained stage: the random start, as if it had been trained."""
    from safetensors.torch import save_file

    config = load_run_config(path)
    clips = load_clips(config.data.clips)
    system = begin(config.model, config.data.size, config.models, clips)
    folder = config.folder("joint")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: p.detach() for n, p in system.model.named_parameters() if "unet" in n}
    save_file(weights, folder / WEIGHTS)


# -- going on


@pytest.mark.timeout(900)  # seconds of a machine that is busy with other things
@pytest.mark.parametrize("stage", [*STAGES, "distill"])
def test_killed_and_resumed_equals_not_killed(stage: str, drawn: Path, tmp_path: Path) -> None:
    matching = {"distill": {"distribution_matching": 0.5, "fake_updates": 1}}
    whole = config_file(tmp_path, drawn, "whole", **matching)
    broken = config_file(tmp_path, drawn, "broken", **matching)
    for path in (whole, broken):
        pretend_joint(path)
    last = run(whole, stage)
    one = config_file(tmp_path, drawn, "broken", **matching, train={"steps": 1})
    run(one, stage)
    assert torch.load(tmp_path / "broken" / stage / CHECKPOINT, weights_only=True)["step"] == 1
    again = run(config_file(tmp_path, drawn, "broken", **matching), stage)
    for name in ("loss", "gradient", "held_out"):
        assert again[name] == pytest.approx(last[name], rel=1e-6), name
    wanted, found = (weights_of(path, stage) for path in (whole, broken))
    assert wanted.keys() == found.keys()
    assert max(float((wanted[n] - found[n]).abs().max()) for n in wanted) <= 1e-6


def test_other_settings_need_another_run(drawn: Path, tmp_path: Path) -> None:
    run(config_file(tmp_path, drawn, train={"steps": 1}), "codec")
    with pytest.raises(ConfigError, match="other settings \\(rate\\)"):
        run(config_file(tmp_path, drawn, train={"steps": 2, "rate": 1e-4}), "codec")


def test_half_a_checkpoint_is_none(drawn: Path, tmp_path: Path) -> None:
    path = config_file(tmp_path, drawn, train={"steps": 1})
    run(path, "codec")
    (tmp_path / "run" / "codec" / CHECKPOINT).write_bytes(b"PK half")
    with pytest.raises(DataError, match="cannot be read"):
        run(path, "codec")


# -- learning


@pytest.mark.parametrize(
    ("stage", "steps", "factor"),
    [("codec", 40, 2.5), ("identity", 50, 5.0), ("animate", 40, 2.0), ("joint", 20, 5.0)],
)
@pytest.mark.timeout(900)
def test_a_stage_learns_eight_clips_by_heart(
    stage: str, steps: int, factor: float, drawn: Path, tmp_path: Path
) -> None:
    """Each stage alone, from random weights. The bars are what seconds reach; MODEL_CARD.md holds
    the falls of minutes, and the commands.
    """
    path = config_file(
        *(tmp_path, drawn),
        model={"width": 64},
        train={"steps": steps, "batch": 8, "rate": 3e-3, "warm_up": 10, "decay": "cosine"}
        | {"masked": 0.3, "sample_every": steps, "samples": 4}
        | {"text_dropout": 0.0, "identity_dropout": 0.0, "both_dropout": 0.0},
    )
    last = run(path, stage)["held_out"]
    folder = tmp_path / "run" / stage
    first = json.loads((folder / "log.jsonl").read_text().splitlines()[0])["held_out"]
    assert last < first / factor
    with Image.open(folder / f"sheet_{steps:06d}.png") as sheet:
        assert sheet.height == 4 * SIDE
    assert list(folder.glob("events.out.tfevents.*"))


def test_each_stage_starts_from_the_one_before(drawn: Path, tmp_path: Path) -> None:
    path = config_file(tmp_path, drawn, train={"steps": 1, "rate": 0.05})
    run(path, "codec")
    start = float(run(path, "identity")["held_out"])
    assert start != pytest.approx(
        float(
            run(config_file(tmp_path, drawn, "other", train={"steps": 1}), "identity")["held_out"]
        )
    )
    with pytest.raises(DataError, match="nothing to distil"):
        run(path, "distill")


@pytest.mark.timeout(900)
def test_each_stage_lowers_what_those_before_it_left(tmp_path: Path) -> None:
    """The paper's order, a minute of it; MODEL_CARD.md holds the falls of the full lengths."""
    write_drawn_clips(tmp_path / "moving", people=8, frames=12, size=SIDE)
    path = config_file(
        *(tmp_path, tmp_path / "moving"),
        data={"reference_gap": 4},
        model={"width": 64, "prediction": "velocity"},
        train={"batch": 8, "rate": 3e-3, "warm_up": 10, "decay": "cosine", "error": "latents"}
        | {"shift": 3.0, "masked": 0.3, "samples": 8, "sample_every": 1000}
        | {"text_dropout": 0.0, "identity_dropout": 0.0, "both_dropout": 0.0},
        codec={"steps": 40},
        identity={"steps": 60},
        animate={"steps": 90},
        joint={"steps": 30, "rate": 1.5e-3},
    )
    falls = {}
    for stage in STAGES:
        last = run(path, stage)["held_out"]
        log = (tmp_path / "run" / stage / "log.jsonl").read_text().splitlines()
        falls[stage] = json.loads(log[0])["held_out"] / last
    assert falls["codec"] > 2.5
    assert falls["identity"] > 2
    assert falls["animate"] > 1.25
    assert falls["joint"] > 1.05, falls


def test_animate_net_begins_as_the_encoder_of_identity_net(drawn: Path, tmp_path: Path) -> None:
    path = config_file(tmp_path, drawn, train={"steps": 1, "rate": 0.05})
    run(path, "identity")
    config, clips = load_run_config(path), load_clips(drawn)
    started = build_system(config, "animate", clips).model
    learnt, copied = started.unet.unet.conv_in.weight, started.animate.net.conv_in.weight
    assert torch.equal(learnt, copied)
    run(path, "animate")
    later = build_system(config, "joint", clips).model
    assert torch.equal(later.unet.unet.conv_in.weight, learnt), "it does not learn here"
    assert not torch.equal(later.animate.net.conv_in.weight, learnt), "nor is it copied again"


def test_lines_reach_a_random_animate_net_as_large_as_they_are_drawn() -> None:
    made = system()
    lines = torch.zeros(1, 3, SIDE, SIDE)
    lines[:, 1, 20:22] = 1
    with torch.no_grad():
        seen = made.model.animate.net.controlnet_cond_embedding(lines)
    assert (seen - seen.mean((2, 3), keepdim=True)).std() > 0.1


# -- losses


def test_an_error_of_noise_weighed_by_one_over_snr_is_that_of_the_latents() -> None:
    schedule, t = NoiseSchedule(), torch.tensor([20, 500, 990])
    z, noise, wrong = torch.randn(3, 3, 4, 8, 8).unbind(0)
    z_t, eps = schedule.add(z, noise, t), noise + 0.1 * wrong
    of_latents = (schedule.clean(z_t, eps, t) - z).square().mean((1, 2, 3))
    of_noise = (eps - noise).square().mean((1, 2, 3)) * schedule.latent_weight(t)
    torch.testing.assert_close(of_noise, of_latents, rtol=1e-3, atol=1e-7)


def test_shift_leans_timesteps_to_high_noise() -> None:
    share = torch.tensor([0.0, 0.25, 0.5, 0.9, 0.9999])
    assert shifted(share, 1.0).tolist() == [0, 250, 500, 900, 999]
    assert shifted(share, 3.0).tolist() == [0, 500, 750, 964, 999]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    made = system()
    name, parameter = next(iter(made.model.unet.named_parameters()))
    save_file({f"unet.{name}": parameter.detach() * 0}, tmp_path / WEIGHTS)
    assert load_trained(made.model, [tmp_path, tmp_path / "none"]) == [tmp_path / WEIGHTS]
    assert not parameter.detach().any()
    save_file({f"unet.{name}": torch.zeros(3)}, tmp_path / WEIGHTS)
    with pytest.raises(WrongFamily, match="another \\[model\\]"):
        load_trained(made.model, [tmp_path])


# -- what is trained


def system(**switches: Any) -> TalkingSystem:
    settings = ModelSettings(size="small", latents="tiny", **switches)
    return begin(settings, SIDE, Path("models"), [])


def names(stage: Any, weights: Any = "all", **switches: Any) -> set[str]:
    made = system(**switches)
    return set(trained_names(made.model, stage, StageSettings(weights=weights)))


def test_stages_train_what_the_paper_says() -> None:
    assert all(n.startswith("codec.tiny.") for n in names("codec"))
    identity = names("identity")
    assert {n.split(".")[0] for n in identity} == {"unet", "projection"}
    animate = names("animate")
    assert {n.split(".")[0] for n in animate} == {"animate"}
    assert not any(".attn1.processor." in n for n in animate), "temporal attention comes last"
    joint = names("joint")
    assert joint > identity | animate
    assert any(".attn1.processor." in n for n in joint)
    assert not any(".attn1.processor." in n for n in names("joint", temporal=False))
    assert any(
        n.startswith("reference_net.") for n in names("joint", reference_writer="reference_net")
    )


def test_new_weights_are_those_no_public_checkpoint_holds() -> None:
    new = names("identity", "new")
    assert {n.rsplit(".", 2)[-2] for n in new if n.startswith("unet.")} == {"to_k_ip", "to_v_ip"}
    assert len([n for n in new if n.startswith("unet.")]) == 32
    guided = names("joint", "new") - new
    assert all(".processor." in n or "_tokens." in n for n in guided)
    assert all(is_new(n) for n in guided)
    assert not is_new("animate.net.controlnet_cond_embedding.conv_in.weight")


def data(drawn: Path, frames: int = 2, **more: Any) -> TalkData:
    settings = DataSettings(clips=drawn, size=SIDE, reference_gap=1)
    return TalkData(load_clips(drawn), settings, DEPTH, frames=frames, **more)


def test_batches_depend_on_the_seed_alone(drawn: Path) -> None:
    a, b, c = (data(drawn, masked=0.5).batch(3, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(a.frames, b.frames)
    assert torch.equal(a.mask, b.mask)
    assert not torch.equal(a.frames, c.frames)
    assert a.frames.shape == (3, 2, 3, SIDE, SIDE)
    assert a.points.shape == (3, 2, 68, 3)
    assert a.references.shape == (3, 1, 3, SIDE, SIDE)
    assert a.prompts == (PROMPT,) * 3


def test_placement_is_that_of_the_frame_before(drawn: Path) -> None:
    batch = data(drawn, frames=3).batch(4, (0,))
    assert torch.equal(batch.placement[:, 1:, 5:], placements(batch.landmarks[:, :2])[..., 5:])


def placements(landmarks: torch.Tensor) -> torch.Tensor:
    from engine.face.placement import placement

    rows = [[placement(p, 0.0, 0.0) for p in run] for run in landmarks.numpy()]
    return torch.from_numpy(np.array(rows))


def test_embeddings_of_another_width_are_refused(drawn: Path) -> None:
    with pytest.raises(DataError, match="face_embedding"):
        data(drawn, embedding=128)
    with pytest.raises(DataError, match="more than 9 frames"):
        data(drawn, frames=9)


def test_a_whole_picture_makes_both_masked_losses_the_same(drawn: Path) -> None:
    made = system()
    batch = data(drawn, frames=1).batch(2, (3,))
    losses = {}
    for target in ("restore", "printed"):
        for hidden in (False, True):
            mask = torch.ones_like(batch.mask)
            if hidden:
                mask[:, :, : SIDE // 2] = 0
            settings = StageSettings(
                masked_target=target, text_dropout=0, identity_dropout=0, both_dropout=0
            )
            torch.manual_seed(0)
            with torch.no_grad():
                loss = StageLoss(made, "identity", settings)(dataclasses.replace(batch, mask=mask))
            losses[target, hidden] = float(loss)
    assert losses["restore", False] == pytest.approx(losses["printed", False], rel=1e-5)
    assert losses["restore", True] != pytest.approx(losses["printed", True], rel=1e-6)


def test_dropout_empties_words_and_embeddings(drawn: Path) -> None:
    made = system()
    batch = data(drawn).batch(3, (0,))
    with torch.no_grad():
        whole = made.conditions(batch)
        rows = torch.tensor([True, False, False])
        dropped = made.conditions(batch, rows, ~rows)
        nobody = made.model.identify(torch.zeros_like(batch.embeddings))
    assert whole.identity is not None
    assert dropped.identity is not None
    assert not torch.equal(dropped.text[0], whole.text[0])
    assert torch.equal(dropped.text[1:], whole.text[1:])
    assert torch.equal(dropped.identity[0], whole.identity[0])
    torch.testing.assert_close(dropped.identity[1:], nobody[1:])


def test_checkpointing_computes_the_same_gradient(drawn: Path) -> None:
    batch = data(drawn).batch(2, (0,))
    gradients = []
    for checkpointing in (False, True):
        made = system()
        if checkpointing:
            made.model.unet.unet.enable_gradient_checkpointing()
            made.model.animate.net.enable_gradient_checkpointing()
        made.train()
        torch.manual_seed(0)
        StageLoss(made, "joint", StageSettings(cold=0.0))(batch).backward()
        gradients.append(
            {n: p.grad for n, p in made.model.named_parameters() if p.grad is not None}
        )
    plain, saved = gradients
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, saved[name], rtol=1e-4, atol=1e-6)


def test_a_roll_out_is_what_the_live_engine_draws(drawn: Path) -> None:
    """Two frames through the frame cache, by training's code and by the engine's picture part."""
    from types import SimpleNamespace

    from engine.render.sd15_networks import BASE_PROMPT, FrameNetworks, Sampling

    assert BASE_PROMPT == PROMPT
    made = system()
    with torch.no_grad():  # away from the zeros that caches and guidance start from
        for parameter in made.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = data(drawn).batch(1, (5,))
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8)
    live = FrameNetworks(
        made.model, Sampling(num_inference_steps=2), tokenise=made._tokenise, depth=DEPTH
    )
    with torch.no_grad():
        told = made.conditions(batch)
        face = SimpleNamespace(identity=told.identity, reference=told.reference, nobody=None)
        shot = SimpleNamespace(noise=SimpleNamespace(start=noise, seed=0), index=0)
        before, keys = None, None
        for frame in range(2):
            guide = made.guidance(batch, frame, cold=frame == 0)
            ours, before = made.denoise(noise, 2, told, guide, before)
            model = live.frame_model(face, guide, told.text, keys)  # type: ignore[arg-type]
            theirs, keys = live.sample(model, shot), model.keys  # type: ignore[arg-type]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        alone, _ = made.denoise(noise, 2, told, guide, None)
    assert not torch.allclose(alone, ours, atol=1e-4), "the cache is looked at"


# -- configuration


def test_unknown_and_wrong_settings_are_refused(tmp_path: Path) -> None:
    good = {"run": "r", "data": {"clips": "c"}}
    run_config(json.loads(json.dumps(good)), tmp_path)
    for change, words in (
        ({"data": {}}, "needs clips"),
        ({"train": {"stepps": 3}}, "did you mean 'steps'"),
        ({"train": {"steps": "many"}}, "steps='many': wanted int"),
        ({"train": {"cold": 1.5}}, "from 0 to 1"),
        ({"model": {"size": "medium"}}, "one of 'full', 'small'"),
        ({"model": {"width": 64}}, 'size = "small" with it'),
        ({"model": {"size": "small", "width": 6}}, "not a multiple of"),
        ({"model": {"prediction": "velocity"}}, 'size = "small"'),
        ({"train": {"error": "latents", "snr_gamma": 5.0}}, "snr_gamma weighs errors of noise"),
        ({"train": {"shift": 0.0}}, "shift=0.0: wanted more than 0"),
        ({"distill": {"frames": 1}}, "two frames"),
        ({"data": {"clips": "c", "size": 100}}, "multiple of 8"),
        ({"train": {"batch": 6, "accumulate": 4}}, "multiple of accumulate"),
        ({"colour": {}}, "unexpected 'colour'"),
        ({"run": 3}, "no `run`"),
    ):
        with pytest.raises(ConfigError, match=words):
            run_config(json.loads(json.dumps(good | change)), tmp_path)
    with pytest.raises(ConfigError, match="no configuration"):
        load_run_config(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["drawn", "sd15"])
def test_the_examples_are_read(name: str) -> None:
    folder = Path(__file__).parents[3] / "engine" / "training" / "configs"
    config = load_run_config(folder / f"{name}.toml")
    assert config.model.size == ("small" if name == "drawn" else "full")
    if name == "sd15":
        assert config.stage("identity").rate == 5e-6, "the paper's"
        assert config.stage("joint").batch == 32


def test_a_full_run_says_which_checkpoint_is_missing(tmp_path: Path, drawn: Path) -> None:
    path = config_file(tmp_path, drawn, model={"size": "full", "latents": "vae"})
    with pytest.raises(Exception, match=r"sd15 .* is not here; bring it with"):
        run(path, "identity")


def test_clips_know_their_people(drawn: Path) -> None:
    clips = load_clips(drawn)
    assert len({c.card.person for c in clips}) == 8
    assert isinstance(clips[0], Clip)


# -- DiffTalk's conditioning


@pytest.fixture(scope="module")
def heard(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn clips with speech features of 6 numbers."""
    import shutil

    folder = tmp_path_factory.mktemp("heard") / "clips"
    shutil.copytree(drawn, folder)
    rng = np.random.default_rng(0)
    for clip in load_clips(folder):
        np.save(clip.folder / "speech.npy", rng.standard_normal((2 * len(clip), 6), np.float32))
    return folder


DIFFTALK = {"conditioning": "difftalk", "speech_features": 6}


def test_difftalk_samples_carry_what_each_frame_hears(drawn: Path, heard: Path) -> None:
    batch = data(heard, frames=2, speech=6).batch(3, (0,))
    assert batch.speech.shape == (3, 2, 16, 6)
    assert batch.speech.abs().sum((2, 3)).min() > 0
    made = system(**DIFFTALK)
    guide = made.guidance(batch, -1)
    assert guide.concat is not None
    assert guide.concat.shape == (3, 8, SIDE // 8, SIDE // 8)
    torch.testing.assert_close(guide.concat[:, 4:], made.encode(batch.references[:, 0]))
    assert guide.landmarks.shape == (3, 39, 3)
    lower = batch.frames.clone()
    lower[:, :, :, SIDE * 3 // 4 :] = 0  # well below every nose tip
    same = made.guidance(dataclasses.replace(batch, frames=lower), -1)
    assert torch.equal(guide.concat, same.concat), "the lower half cannot be seen"
    with pytest.raises(DataError, match="holds no speech, the model wants speech of 6"):
        data(drawn, speech=6)
    with pytest.raises(DataError, match="features of 6 numbers"):
        data(heard, speech=WIDTH)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["identity", "joint"])
def test_after_a_few_steps_the_masked_frame_matters(
    stage: str, heard: Path, tmp_path: Path
) -> None:
    train_ = {"steps": 3, "batch": 4, "rate": 4e-3, "cold": 0.5}
    path = config_file(
        *(tmp_path, heard),
        model={"size": "small", "latents": "tiny", **DIFFTALK},
        train=train_,
    )
    run(path, stage)
    made = system(**DIFFTALK)
    batch = data(heard, frames=2, speech=6).batch(2, (7,))
    z_t, t = torch.randn(2, 4, SIDE // 8, SIDE // 8), torch.tensor([700, 300])

    @torch.no_grad()
    def asked(change: float) -> torch.Tensor:
        told, concat = made.conditions(batch), made.concat(batch, -1)
        assert concat is not None
        masked = torch.cat([concat[:, :4] + change, concat[:, 4:]], 1)
        return made.unguided(z_t, t, told, masked)

    assert torch.equal(asked(0.0), asked(1.0)), "not before training"
    assert load_trained(made.model, [tmp_path / "run" / stage])
    assert (asked(0.0) - asked(1.0)).abs().max() > 1e-3


def test_difftalk_adds_new_weights_to_what_is_trained() -> None:
    new = names("joint", "new", **DIFFTALK) - names("joint", "new")
    assert {n for n in new if "speech_tokens" not in n} == {"unet.unet.conv_in.more.weight"}
    with pytest.raises(ConfigError, match="reads no speech"):
        system(conditioning="difftalk", guider="pose_guider")
