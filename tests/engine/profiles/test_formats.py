"""Every public file format, from the command line to frames; and which option reaches which file."""

from __future__ import annotations

import dataclasses
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from typer.testing import CliRunner  # noqa: E402

import engine.cli  # noqa: E402
import engine.profiles  # noqa: E402
import server.cli  # noqa: E402
from engine.audio.speech_encoder import WIDTH  # noqa: E402
from engine.config import EngineConfig  # noqa: E402
from engine.errors import AvatarError, ConfigError, WeightsError  # noqa: E402
from engine.face.image_file import decode_image  # noqa: E402
from engine.loaders.checkpoints import CHECKPOINTS  # noqa: E402
from engine.loaders.registry import LicenceError, find  # noqa: E402
from engine.nets.projection import PlusProjection  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402
from engine.options import SD15  # noqa: E402
from engine.profiles import load_profile  # noqa: E402
from engine.profiles.checkpoints import weight_files  # noqa: E402
from engine.profiles.choose import make_config  # noqa: E402
from engine.profiles.sd15 import Parts, load_parts  # noqa: E402
from server.settings import BUNDLED_PORTRAIT  # noqa: E402
from tests.engine.profiles.small_models import SMALL, write_small_models  # noqa: E402
from tests.engine.profiles.test_run_card import card  # noqa: E402
from tests.engine.profiles.test_run_card import write as write_run  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]
FILE = find("sd15-file").files[0]
Where = tuple[str, ...]
# Of every id that `portraittalk models` prints, a command that reaches it.
REACHED_BY: dict[str, Where] = {
    "sd15": ("generate",),
    "sd15-file": ("serve", "--sd15-file", f"MODELS/sd15-file/{FILE}"),
    "sd15-tokenizer": ("serve", "--sd15-file", f"MODELS/sd15-file/{FILE}"),
    "sd-vae-ft-mse": ("generate", "--full-codec"),
    "taesd": ("serve",),
    "control-mediapipe-face": ("serve",),
    "faceid": ("serve",),
    "faceid-portrait": ("serve", "--adapter", "faceid-portrait"),
    "faceid-plus-v2": ("serve", "--adapter", "faceid-plus-v2"),
    "lcm-lora": ("serve", "--few-step", "lcm-lora"),
    "tcd-lora": ("serve", "--few-step", "tcd-lora"),
    "hyper-sd-1step": ("serve", "--few-step", "hyper-sd-1step"),
    "hyper-sd-2steps": ("serve", "--few-step", "hyper-sd-2steps"),
    "motion-v2": ("serve", "--motion-modules", "v2"),
    "motion-v3": ("serve", "--motion-modules", "v3"),
    "hubert-base": ("serve", "--speech", "hubert-base"),
    "hubert-large": ("serve", "--speech", "hubert-large"),
    "auraface": ("prepare", "--face-encoder", "auraface"),
    "sface": ("prepare", "--face-encoder", "sface"),
    "insightface": ("serve", "--face-encoder", "insightface"),
    "antelopev2": ("prepare", "--face-encoder", "antelopev2"),
    "clip": ("serve", "--adapter", "faceid-plus-v2"),
    "mediapipe-face": ("prepare", "--landmarks", "mediapipe"),
}
# Of every option of the sd15 profile, a value that is not what is taken without it.
OPTIONS: dict[str, str] = {
    "--guidance": "2",
    "--sampler": "euler",
    "--few-step": "hyper-sd-1step",
    "--identity-scale": ".5",
    "--reference-scale": ".5",
    "--control-scale": ".5",
    "--text-scale": ".5",
    "--structure-scale": ".5",
    "--mix": f"{BUNDLED_PORTRAIT}:.4",
    "--tiny-codec": "",
    "--long-video": "neither",
    "--window": "8",
    "--overlap": "2",
    "--models-dir": "MODELS",
    "--sd15-file": FILE,
    "--use": "commercial",
    "--adapter": "faceid-plus-v2",
    "--face-encoder": "antelopev2",
    "--random-weights": "small",
    "--trained": "MODELS/joint",
    "--conditioning": "difftalk",
    "--output-scale": "2",
    "--history": "2",
    "--motion-modules": "v2",
    "--compile": "cudagraphs",
}
Reach = Callable[..., Any]


class Reached(Exception):
    """What a command was about to load and draw."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 1920, np.int16).tobytes())
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The full size is a small one."""
    monkeypatch.setattr(Sd15Config, "full", classmethod(lambda cls: SMALL))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch, sound: Path, tmp_path: Path) -> Reach:
    """Runs a command of sd15 up to where it loads; gives the configuration and how many others are mixed in."""

    def draw(config: EngineConfig, casting: Any, *_: Any) -> None:
        raise Reached(config, len(casting.mixed))

    def load(config: EngineConfig) -> None:
        raise Reached(config, None)

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(engine.cli, "_draw", draw)
    monkeypatch.setattr(engine.profiles, "load_profile", load)
    monkeypatch.setattr(server.cli, "configure", lambda *_: None)
    files = ["-p", str(BUNDLED_PORTRAIT), "-a", str(sound), "-o", str(tmp_path / "o.mp4")]

    def run(command: str, *options: str) -> Any:
        given = files if command == "generate" else []
        done = CliRunner().invoke(server.cli.app, [command, *given, "--profile", "sd15", *options])
        assert isinstance(done.exception, Reached), (done.output, done.exception)
        return done.exception.args

    return run


def parts_of(models: Path, *, live: bool = True, **how: Any) -> Parts:
    config = make_config("sd15", {"threads": 1}, {"models_dir": models, **how}, live=live)
    torch.manual_seed(0)  # AnimateNet's own attention is in no public file
    return load_parts(config, WIDTH, torch.float32)


def weights(parts: Parts) -> dict[str, Any]:
    return dict(parts.model.state_dict())


@pytest.mark.usefixtures("small")
def test_one_file_is_the_folder(models: Path) -> None:
    folder = weights(parts_of(models))
    one = weights(parts_of(models, sd15_file=models / "stable-diffusion-v1-5" / FILE))
    assert folder.keys() == one.keys()
    assert all(torch.equal(tensor, one[name]) for name, tensor in folder.items())


@pytest.mark.usefixtures("small")
def test_a_file_of_ones_own_is_taken_where_its_licence_may_be_unknown(
    models: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine.safetensors"
    own.write_bytes((models / "stable-diffusion-v1-5" / FILE).read_bytes())
    parts_of(models, sd15_file=own)
    bare = {"adapter": "none", "use": "commercial"}
    parts_of(models, sd15_file=models / "stable-diffusion-v1-5" / FILE, **bare)
    with pytest.raises(LicenceError, match="licence of .*mine.safetensors is not known here"):
        parts_of(models, sd15_file=own, **bare)
    for wrong in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(WeightsError, match="is no file; name one .safetensors file"):
            parts_of(models, sd15_file=wrong)


@pytest.mark.usefixtures("small")
def test_a_person_is_made_of_the_face_and_its_picture(models: Path) -> None:
    """`--adapter faceid-plus-v2`, live, as a viewer would see it."""
    how = {"models_dir": models, "adapter": "faceid-plus-v2", "few_step": "hyper-sd-1step"}
    config = make_config("sd15", {"threads": 1}, {**how, "structure_scale": 0.5}, live=True)
    loaded = load_profile(config)
    projection = loaded._renderer.networks.model.projection  # type: ignore[attr-defined]
    assert isinstance(projection, PlusProjection)
    assert projection.structure == 0.5
    assert projection.nothing.abs().max() > 0
    shown = {}
    for structure in (0.5, 0.0):
        projection.structure = structure
        state = loaded.start(loaded.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes())), seed=1)
        frames = [*loaded.step(state, np.zeros(4 * 640, np.float32)), *loaded.flush(state)]
        shown[structure] = np.stack([frame.rgb for frame in frames])
    assert shown[0.5].shape == (4, 64, 64, 3)
    assert (shown[0.5] != shown[0.0]).mean() > 0.05


@pytest.mark.usefixtures("small")
def test_the_command_draws_with_all_of_them(models: Path, sound: Path, tmp_path: Path) -> None:
    command = ["generate", "--profile", "sd15", "--models-dir", str(models), "--threads", "1"]
    command += ["-p", str(BUNDLED_PORTRAIT), "-a", str(sound), "-o", str(tmp_path / "frames")]
    command += ["--sd15-file", str(models / "stable-diffusion-v1-5" / FILE)]
    command += ["--adapter", "faceid-plus-v2", "--few-step", "hyper-sd-2steps"]
    done = CliRunner().invoke(server.cli.app, command)
    assert done.exit_code == 0, (done.output, done.exception)
    frames = [
        decode_image(path.read_bytes()) for path in sorted((tmp_path / "frames").glob("*.png"))
    ]
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 3
    assert all(frame.std() > 1 for frame in frames)


def test_a_lora_brings_its_sampler_and_its_steps() -> None:
    for live in (True, False):
        for name, sampler, steps in (
            ("lcm-lora", "lcm", 4),
            ("tcd-lora", "tcd", 4),
            ("hyper-sd-1step", "tcd", 1),
            ("hyper-sd-2steps", "ddim", 2),
        ):
            config = make_config("sd15", {}, {"few_step": name}, live=live)
            how = config.diffusion
            assert (how.sampler, config.num_inference_steps) == (sampler, steps)
            assert how.guidance_scale == 1
    config = make_config("sd15", {"num_inference_steps": 2}, {"few_step": "lcm-lora"}, live=True)
    assert config.num_inference_steps == 2


@pytest.mark.parametrize(
    ("common", "how", "said"),
    [
        ({}, {"few_step": "lcm-lora", "sampler": "ddim"}, "lcm-lora is sampled with 'lcm'"),
        ({"num_inference_steps": 4}, {"few_step": "hyper-sd-2steps"}, "draws in 2; leave --steps"),
        ({}, {"few_step": "lightning"}, "'hyper-sd-1step', 'hyper-sd-2steps'"),
        ({}, {"few_step": "tcd-lora", "random_weights": "small"}, "few_step: random_weights"),
        ({}, {"sd15_file": Path("a"), "random_weights": "small"}, "sd15_file: random_weights"),
        ({}, {"structure_scale": 0.5}, "only adapter='faceid-plus-v2' reads"),
        ({}, {"structure_scale": 5.0, "adapter": "faceid-plus-v2"}, "out of range; 0 to 4"),
    ],
)
def test_what_does_not_go_together_is_refused(
    common: dict[str, Any], how: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_profile(make_config("sd15", common, how, live=True))


@pytest.mark.parametrize("encoder", ["antelopev2", "auraface", "clip"])
def test_plus_wants_the_pair_that_it_was_trained_on(encoder: str) -> None:
    how = {"adapter": "faceid-plus-v2", "face_encoder": encoder}
    with pytest.raises(WeightsError, match="same-looking vectors"):
        load_profile(make_config("sd15", {}, how, live=True))


def test_every_checkpoint_is_reached_from_the_command_line(reach: Reach, tmp_path: Path) -> None:
    listed = CliRunner().invoke(server.cli.app, ["models"], env={"COLUMNS": "200"}).output
    printed = {line.split()[0] for line in listed.splitlines() if " MB " in line}
    assert printed == {c.id for c in CHECKPOINTS} == set(REACHED_BY)
    kept = tmp_path / "kept"
    for checkpoint in CHECKPOINTS:
        for pattern in checkpoint.files:
            path = kept / checkpoint.id / pattern.replace("*", "any")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
    empty = tmp_path / "empty"
    empty.mkdir()
    for name, (command, *options) in REACHED_BY.items():
        options = [option.replace("MODELS", str(kept)) for option in options]
        if command == "prepare":
            line = [command, str(tmp_path), "-o", str(tmp_path / "clips"), *options]
            done = CliRunner().invoke(server.cli.app, [*line, "--models-dir", str(empty)])
            assert isinstance(done.exception, AvatarError), (name, done.output)
            assert f"{name} (" in str(done.exception), "it is what is missing"
            assert "bring it with" in str(done.exception)
            continue
        config, _ = reach(command, *options, "--models-dir", str(kept))
        read = {path for path in weight_files(config) if path.is_relative_to(kept / name)}
        assert read, f"{name} is not read by {command} {options}"


@pytest.mark.parametrize("command", ["generate", "serve"])
def test_every_option_of_the_profile_changes_what_is_loaded_or_drawn(
    command: str, reach: Reach, tmp_path: Path
) -> None:
    group: Any = typer.main.get_command(server.cli.app)
    names = {
        name
        for option in group.commands[command].params
        if getattr(option, "rich_help_panel", None) == SD15
        for name in (*option.opts[:1], *option.secondary_opts[:1])
    } - {"--full-codec"}  # what is taken without it
    assert names <= set(OPTIONS)
    assert command != "generate" or names == set(OPTIONS)
    write_run(tmp_path / "joint", card())
    plain = reach(command)
    for name in sorted(names):
        value = OPTIONS[name].replace("MODELS", str(tmp_path))
        told = reach(command, name, *([value] if value else []))
        assert told != plain, f"{command} {name} {value} changes nothing"
        if name != "--mix":
            assert told[0] != plain[0]
            changed = dataclasses.asdict(told[0])["diffusion"]
            assert changed != dataclasses.asdict(plain[0])["diffusion"]
