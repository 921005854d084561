"""What was trained is what is drawn: by the engine as by the trainer's own sampler, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from engine.audio.speech_encoder import WIDTH  # noqa: E402
from engine.avatar import AvatarEngine  # noqa: E402
from engine.config import DiffusionSettings  # noqa: E402
from engine.errors import ConfigError, WeightsError  # noqa: E402
from engine.evaluation.student import compare  # noqa: E402
from engine.loaders.face_encoder import load_encoder  # noqa: E402
from engine.loaders.registry import find, require  # noqa: E402
from engine.loaders.run_card import WEIGHTS, FaceSpace, find_run  # noqa: E402
from engine.loaders.safetensors_header import metadata  # noqa: E402
from engine.loaders.trained import load_stages  # noqa: E402
from engine.profiles import load_profile  # noqa: E402
from engine.profiles.checkpoints import encoder_of, run_checkpoints  # noqa: E402
from engine.profiles.choose import make_config  # noqa: E402
from engine.profiles.sd15 import DiffusionRenderer  # noqa: E402
from engine.render.sd15_networks import Aim, FrameNetworks  # noqa: E402
from engine.training.data.clips import load_clips  # noqa: E402
from engine.training.data.drawn_clips import bundled_embedder, write_drawn_clips  # noqa: E402
from engine.training.portraittalk.begin import build_system  # noqa: E402
from engine.training.portraittalk.dataset import TalkBatch  # noqa: E402
from engine.training.portraittalk.patch_judge import RandomFeatures  # noqa: E402
from engine.training.portraittalk.roll_out import fixed_roll_out  # noqa: E402
from engine.training.portraittalk.stage_config import load_run_config  # noqa: E402
from engine.training.portraittalk.system import TalkingSystem  # noqa: E402
from tests.contracts.small import decoded  # noqa: E402
from tests.engine.loaders.test_face_encoder import write as write_encoder  # noqa: E402
from tests.engine.loaders.test_face_encoder import write_clip  # noqa: E402
from tests.engine.training.stage_runs import SIDE, config_file  # noqa: E402
from tests.engine.training.stage_runs import run as run_stage  # noqa: E402

pytestmark = pytest.mark.train
HOP, FRAMES = 640, 3
SWITCHES: dict[str, dict[str, Any]] = {
    "unified": {"attention": "unified"},
    "no face encoder": {"face_encoder": False},
    "first reference": {"references": "first"},
    "no placement": {"placement": False},
    "no temporal": {"temporal": False},
    "ReferenceNet": {"reference_writer": "reference_net"},
    "pose guider": {"guider": "pose_guider"},
    "16 tokens": {"projection": "portrait"},
    "velocity": {"prediction": "velocity"},
    "wider": {"width": 32, "seed": 3},
}
TOGETHER = (  # every switch once, in as few runs as they allow
    ("first reference", "16 tokens", "velocity"),
    ("unified", "no placement", "ReferenceNet", "wider"),
    ("no face encoder", "no temporal", "pose guider"),
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of drawn people whose embeddings the bundled encoder made."""
    folder = tmp_path_factory.mktemp("embedded")
    write_drawn_clips(folder, people=2, frames=4, size=SIDE, embed=bundled_embedder())
    return folder


def trained(folder: Path, clips: Path, **tables: Any) -> Path:
    """A run of one step a stage."""
    rough = {"steps": 1, "sample_steps": 2}
    model = {"size": "small", "latents": "tiny"} | tables.pop("model", {})
    return config_file(folder, clips, model=model, train=rough | tables.pop("train", {}), **tables)


def run(path: Path, stage: str) -> None:
    """Train a stage, then move every weight of it away from the zeros that many start from."""
    run_stage(path, stage)
    file = path.parent / path.stem / stage / WEIGHTS
    generator = torch.Generator().manual_seed(len(stage))
    moved = {
        name: tensor + spread(name) * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(file).items()
    }
    save_file(moved, file, metadata=metadata(file))


def spread(name: str) -> float:
    """A pose guider's lines fade on their way through small weights."""
    return 0.3 if name.startswith(("animate.conv", "animate.blocks")) else 0.05


def engine_of(folder: Path, *, live: bool = False, **how: Any) -> AvatarEngine:
    common = {"threads": 1} | {n: how.pop(n) for n in ("num_inference_steps",) if n in how}
    return load_profile(make_config("sd15", common, {"trained": (folder,)} | how, live=live))


def drawn_by_the_engine(
    engine: AvatarEngine, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], TalkBatch]:
    """Latents of a few frames, and what each was to show as a sample of training."""
    aims: list[Aim] = []
    aim = FrameNetworks.aim

    def keep(networks: FrameNetworks, *told: Any) -> Aim:
        aims.append(aim(networks, *told))
        return aims[-1]

    monkeypatch.setattr(FrameNetworks, "aim", keep)
    identity = engine.enroll(portrait)
    state = engine.start(identity, seed=1)  # the noise that `fixed_roll_out` begins from
    sound = (0.2 * np.random.default_rng(0).standard_normal(FRAMES * HOP)).astype(np.float32)
    with decoded() as latents:
        assert len([*engine.step(state, sound), *engine.flush(state)]) == FRAMES
    return latents, sample_of(engine, portrait, identity.face, aims)


def sample_of(engine: AvatarEngine, portrait: np.ndarray, face: Any, aims: list[Aim]) -> TalkBatch:
    renderer: DiffusionRenderer = engine._renderer  # type: ignore[assignment]
    asked: list[np.ndarray] = []
    embed = renderer._embed
    if embed is not None:
        renderer._embed = lambda *told: asked.append(embed(*told)) or asked[-1]  # type: ignore[func-returns-value]
        engine.enroll(portrait)
        renderer._embed = embed
    square = torch.from_numpy(face.rgb.copy()).permute(2, 0, 1)[None, None].float() / 127.5 - 1
    placed = [face.placed, *(a.placed for a in aims)]
    tensor = lambda rows: torch.from_numpy(np.stack(rows))[None]
    width = np.zeros((16, 0), np.float32)
    return TalkBatch(
        frames=square.expand(-1, len(aims), -1, -1, -1),
        landmarks=tensor([a.landmarks for a in aims]).float(),
        points=tensor([a.points for a in aims]).float(),
        placement=tensor(placed[:-1]).float(),
        references=square,
        reference_placement=tensor([face.placed])[0].float(),
        embeddings=tensor(asked or [np.zeros(512, np.float32)]),
        speech=tensor([width if a.speech is None else a.speech for a in aims]),
        mask=torch.ones(1, 1, SIDE, SIDE),
        prompts=("portrait of a person, looking at the camera",),
    )


def system_of(path: Path, stage: str) -> TalkingSystem:
    """The trainer's own networks after `stage`."""
    config = load_run_config(path)
    system = build_system(config, "distill", load_clips(config.data.clips))
    if stage == "distill":
        load_stages(system.model, system.origin.start, [config.folder("distill")])
    return system.eval()


def check_served(path: Path, stage: str, portrait: np.ndarray, **how: Any) -> AvatarEngine:
    with pytest.MonkeyPatch.context() as patch:
        engine = engine_of(path.parent / path.stem, **how)
        latents, batch = drawn_by_the_engine(engine, portrait, patch)
    system = system_of(path, stage)
    steps = engine.config.num_inference_steps
    wanted = fixed_roll_out(system, batch, steps)
    for made, frame in zip(latents, wanted, strict=True):
        torch.testing.assert_close(system.decode(made), frame, rtol=0, atol=1e-4)
    assert (wanted[0] - wanted[-1]).abs().max() > 1e-3, "frames differ, so this compares something"
    return engine


def test_every_switch_is_tried() -> None:
    assert sorted(name for names in TOGETHER for name in names) == sorted(SWITCHES)


@pytest.mark.parametrize("names", TOGETHER)
def test_a_run_is_drawn_as_its_trainer_samples_it(
    names: tuple[str, ...], clips: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    switches = {key: value for name in names for key, value in SWITCHES[name].items()}
    path = trained(tmp_path, clips, model=switches)
    run(path, "joint")
    engine = check_served(path, "joint", portrait)
    assert (engine.config.num_inference_steps, engine.config.diffusion.sampler) == (2, "ddim")


def test_a_run_on_faces_and_their_pictures_is_drawn_as_its_trainer_samples_it(
    portrait: np.ndarray, tmp_path: Path
) -> None:
    """FaceID-Plus' projection, on clips prepared with `--face-encoder insightface-clip`."""
    models, clips = tmp_path / "models", tmp_path / "clips"
    write_encoder(models / "insightface" / find("insightface").files[0], 512)
    write_clip(models / "IP-Adapter")
    pair = load_encoder("insightface-clip", lambda part: require(part, models))
    write_drawn_clips(clips, people=2, frames=4, size=SIDE, embed=pair)
    path = trained(tmp_path, clips, model={"projection": "plus"})
    run(path, "joint")
    card = find_run([tmp_path / "run"]).card
    assert card.face == FaceSpace(name=find("faceid-plus-v2").space, width=512 + 5 * 24)
    engine = check_served(path, "joint", portrait, models_dir=models)
    assert engine.config.diffusion.face_encoder == "insightface-clip"
    with pytest.raises(WeightsError, match="insightface, clip"):
        engine_of(tmp_path / "run", models_dir=clips)


@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_by_itself(
    switch: str, clips: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    path = trained(tmp_path, clips, model=SWITCHES[switch])
    run(path, "joint")
    check_served(path, "joint", portrait)


def test_a_student_is_drawn_with_its_own_steps_and_needs_its_codec(
    clips: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    """Two stages and the distillation: a codec that was trained is part of the run, live as offline."""
    path = trained(
        tmp_path, clips, distill={"student_steps": 3, "adversarial": 0.0, "perceptual": "none"}
    )
    for stage in ("codec", "joint", "distill"):
        run(path, stage)
    folder = tmp_path / path.stem
    assert find_run([folder]).folders == (folder / "codec", folder / "distill")
    engine = check_served(path, "distill", portrait, live=True)
    how = engine.config.diffusion
    assert (how.sampler, how.guidance_scale, engine.config.num_inference_steps) == ("ddim", 1.0, 3)
    assert needed(folder) == []
    check_served(path, "distill", portrait, num_inference_steps=1)
    errors = compare(load_run_config(path), steps=1, teacher_steps=2, perceptual=RandomFeatures())
    assert errors["student"] != errors["teacher_few"]
    assert all(error.mouth > 0 for error in errors.values())
    for said, options in (
        ("is a student of few steps already", {"sampler": "lcm"}),
        ("leave that LoRA", {"few_step": "hyper-sd-1step"}),
        ("draws with it alone", {"sampler": "euler"}),
        ("1 to 3 steps", {"num_inference_steps": 4}),
        ("teacher's guidance is in it", {"guidance_scale": 2.0}),
        ("only its own small autoencoder", {"codec": "full"}),
        ("leave the option out, the run knows", {"face_encoder": "insightface"}),
        ("leave the option out, the run knows", {"conditioning": "difftalk"}),
        ("random_weights", {"random_weights": "small"}),
    ):
        with pytest.raises(ConfigError, match=said):
            engine_of(folder, live=True, **options)
    engine_of(folder, guidance_scale=0.0)  # stands for none
    (folder / "codec" / WEIGHTS).rename(folder / "codec" / "gone")
    with pytest.raises(WeightsError, match="builds on codec.*keep the stages of a run together"):
        engine_of(folder)


def needed(folder: Path) -> list[str]:
    """Names of the public checkpoints that a run asks for."""
    run_ = find_run([folder])
    return run_checkpoints(run_, DiffusionSettings(sampler="ddim"), encoder_of(run_))


def test_before_joint_no_frame_sees_the_one_before(
    clips: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    path = trained(tmp_path, clips)
    run(path, "animate")
    folder = tmp_path / path.stem
    with pytest.MonkeyPatch.context() as patch:
        engine = engine_of(folder)
        latents, batch = drawn_by_the_engine(engine, portrait, patch)
    system = system_of(path, "animate")
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        told = system.conditions(batch)
        for frame, made in enumerate(latents):
            wanted, _ = system.denoise(noise, 2, told, system.guidance(batch, frame), None)
            torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="never saw the frame before"):
        engine_of(folder, long_video="cache")


@pytest.mark.parametrize("live", [True, False])
def test_difftalk_is_drawn_as_its_trainer_samples_it(
    live: bool, clips: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    """The masked frame is the engine's: the trainer has the filmed one, which nobody has later."""
    heard = tmp_path / "heard"
    shutil.copytree(clips, heard)
    for clip in load_clips(heard):
        rng = np.random.default_rng(0)
        np.save(clip.folder / "speech.npy", rng.standard_normal((2 * len(clip), WIDTH), np.float32))
    path = trained(tmp_path, heard, model={"conditioning": "difftalk"})
    run(path, "joint")
    shown: list[Tensor] = []
    guide = FrameNetworks.guide

    def keep(networks: FrameNetworks, *told: Any) -> Any:
        made = guide(networks, *told)
        shown.append(made.concat)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameNetworks, "guide", keep)
        latents, batch = drawn_by_the_engine(
            engine_of(tmp_path / "run", live=live), portrait, patch
        )
    system = system_of(path, "joint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "concat", lambda batch, frame: shown[frame])
        wanted = fixed_roll_out(system, batch, 2)
    for made, frame in zip(latents, wanted, strict=True):
        torch.testing.assert_close(system.decode(made), frame, rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="leave the option out"):
        engine_of(tmp_path / "run", conditioning="portraittalk")
