"""The sd15 engine with a HuBERT for its encoder: files in the public and in our own format, both laws."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertConfig

from benchmarks.small_hubert import SIZES
from engine.audio.hubert import window_of
from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig, SpeechEncoderName
from engine.enroll import Identity
from engine.errors import WeightsError
from engine.loaders.files import WrongFamily
from engine.loaders.hubert_motion import (
    exported_hubert,
    hubert_module,
    load_hubert_motion,
    motion_checkpoint,
)
from engine.motion.channels import CHANNELS
from engine.nets.motion_vae import MotionSettings, MotionVae
from engine.offline.video import Casting, generate
from engine.profiles import load_profile
from engine.profiles.choose import make_config
from engine.profiles.sd15 import load_engine
from engine.training.motion.dataset import Clip
from engine.training.motion.examples import PIECE, MotionTraining, choose_encoder, prepare
from engine.training.motion.loss import spreads
from engine.training.motion.train import train
from exports.hubert import export_hubert
from tests.contracts.small import conditions_only, shown_in, write_wav
from tests.engine.loaders.layouts import hubert, random, save

pytestmark = pytest.mark.train
HOP, FRAMES = 640, 10
torch.set_num_threads(1)


def write_hubert(folder: Path) -> None:
    tensors = random(hubert(HubertConfig(**SIZES), "cpu"), 1)
    save(tensors, folder / "pytorch_model.safetensors")  # the public .bin, as its other variant
    (folder / "config.json").write_text(json.dumps({**SIZES, "model_type": "hubert"}))


def write_motion(path: Path, features: int) -> None:
    """What `engine.training.motion.train` saves, with weights that nobody trained."""
    torch.manual_seed(0)
    net = MotionVae(MotionSettings.hearing(features))
    torch.nn.init.normal_(net.channels.weight, std=0.3)
    torch.nn.init.constant_(net.channels.bias, 0.3)
    average = torch.optim.swa_utils.AveragedModel(net)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": net.state_dict(), "average": average.state_dict(), "step": 1}
    torch.save(state | {"optimiser": torch.optim.AdamW(net.parameters()).state_dict()}, path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "hubert-base").mkdir()
    write_hubert(folder / "hubert-base")
    write_motion(motion_checkpoint("hubert-base", 160, folder), 16)
    return folder


def settings(models: Path, speech: SpeechEncoderName = "hubert-base", **how: Any) -> EngineConfig:
    diffusion = DiffusionSettings(
        **{"random_weights": "small", "sampler": "ddim", "device": "cpu", "models_dir": models}
        | how
    )
    return EngineConfig.sd15(
        live=False, num_inference_steps=1, threads=1, speech=speech, diffusion=diffusion
    )


@pytest.fixture(scope="module")
def engine(models: Path) -> AvatarEngine:
    return load_engine(settings(models))


@pytest.fixture(scope="module")
def identity(engine: AvatarEngine, portrait: np.ndarray) -> Identity:
    return engine.enroll(portrait)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.2 * rng.standard_normal(FRAMES * HOP - 100)).astype(np.float32)


def targets(
    engine: AvatarEngine, identity: Identity, pcm: np.ndarray, cut: int = 10**6
) -> np.ndarray:
    """Landmarks (F, 478, 2) that each frame is to be drawn for; nothing is drawn."""
    state = engine.start(identity, seed=3)
    with conditions_only() as drawn:
        frames = [f for i in range(0, len(pcm), cut) for f in engine.step(state, pcm[i : i + cut])]
        frames += engine.flush(state)
    assert [f.index for f in frames] == list(range(-(-len(pcm) // HOP)))
    assert len(drawn) == len(frames), "no frame is drawn in vain"
    return np.stack([condition.target for condition in drawn])


def test_splitting_the_sound_never_changes_a_frame(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    whole = targets(engine, identity, sound)
    for cut in (333, 2000):
        np.testing.assert_array_equal(targets(engine, identity, sound, cut), whole)


def test_later_sound_never_changes_an_earlier_frame(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    begun = np.tile(sound, 3)
    decided = len(engine.step(engine.start(identity, seed=3), begun))
    assert 0 < decided < 3 * FRAMES
    one, other = (
        targets(engine, identity, np.concatenate([begun, later])) for later in (begun, -begun)
    )
    np.testing.assert_array_equal(one[:decided], other[:decided])
    assert (one[decided:] != other[decided:]).any()


def test_the_mouth_follows_what_hubert_hears(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    assert (targets(engine, identity, sound) != targets(engine, identity, sound[::-1].copy())).any()


def test_a_video_has_every_frame_and_goes_on_where_it_was_stopped(
    models: Path, portrait: np.ndarray, sound: np.ndarray, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "noise.wav", sound)
    casting = Casting(portraits=[portrait], seed=1)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    for way in ("cache", "fusion"):
        made = load_engine(settings(models, long_video=way, conditioning="difftalk"))
        whole, cut = tmp_path / f"{way}-whole", tmp_path / f"{way}-cut"
        assert generate(made, casting, wav, whole).frames == FRAMES
        with pytest.raises(KeyboardInterrupt):
            generate(made, casting, wav, cut, save_every_s=0, progress=stop)
        assert generate(made, casting, wav, cut).resumed_at > 0
        a, b = (shown_in(folder) for folder in (whole, cut))
        assert len(a) == FRAMES
        assert a == b


def test_what_is_missing_is_one_sentence(models: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="hubert-large .* is not here; bring it with: hf"):
        load_engine(settings(models, speech="hubert-large"))
    (tmp_path / "hubert-base").symlink_to(models / "hubert-base")
    with pytest.raises(
        WeightsError, match=r"no motion network for hubert-base .*--speech-encoder hubert-base"
    ):
        load_engine(settings(tmp_path))
    write_motion(motion_checkpoint("hubert-base", 160, tmp_path), 232)
    with pytest.raises(WrongFamily, match="features of 232 numbers, this speech encoder gives 16"):
        load_engine(settings(tmp_path))
    torch.save(
        {"model": {"weight": torch.zeros(1)}}, motion_checkpoint("hubert-base", 160, tmp_path)
    )
    with pytest.raises(WrongFamily, match=r"no checkpoint of engine\.training\.motion"):
        load_engine(settings(tmp_path))


@pytest.mark.parametrize("hop_ms", [40, 160])
@pytest.mark.parametrize("profile", ["tiny", "sd15"])
def test_live_a_frame_comes_every_40_ms(
    models: Path, portrait: np.ndarray, profile: str, hop_ms: int
) -> None:
    write_motion(motion_checkpoint("hubert-base", hop_ms, models), 16)
    how = {"models_dir": models, "random_weights": "small", "device": "cpu"}
    chosen = make_config(
        profile,
        {"speech": "hubert-base", "speech_hop_ms": hop_ms, "threads": 1},
        how if profile == "sd15" else {"models_dir": models},
        live=True,
    )
    engine = load_profile(chosen)
    ahead = engine.config.stream.lookahead_frames
    assert 40 * ahead == hop_ms + 120, "as --help says"
    state = engine.start(engine.enroll(portrait))
    with conditions_only() if profile == "sd15" else nullcontext():
        counts = [len(engine.step(state, np.zeros(HOP, np.float32))) for _ in range(ahead + 6)]
        assert counts == [0] * ahead + [1] * 6
        assert len(engine.flush(state)) == ahead


def test_who_hears_beside_changes_no_frame(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    long = np.tile(sound, 3)
    with conditions_only() as drawn:
        engine.step(engine.start(identity, seed=3), long)
        alone = [condition.target for condition in drawn]
        drawn.clear()
        rows = [(engine.start(identity, seed=3), long), (engine.start(identity), long[::-1].copy())]
        engine.step_many(rows)
    assert len(drawn) == 2 * len(alone) > 0
    np.testing.assert_array_equal(np.stack([c.target for c in drawn[::2]]), np.stack(alone))


def test_its_exported_graph_is_what_the_engine_runs(
    models: Path, engine: AvatarEngine, identity: Identity, sound: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "hubert-base").symlink_to(models / "hubert-base")
    write_motion(motion_checkpoint("hubert-base", 160, tmp_path), 16)
    window = window_of(160)
    path = exported_hubert("hubert-base", 160, tmp_path)
    export_hubert(hubert_module("hubert-base", window, tmp_path), window, path)
    exported = load_engine(settings(tmp_path))
    np.testing.assert_allclose(
        targets(exported, identity, sound), targets(engine, identity, sound), atol=1e-2
    )
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="not a readable ONNX"):
        load_engine(settings(tmp_path))


def recording(name: str, *, real: bool) -> Clip:
    rng = np.random.default_rng(len(name))
    frames, pcm = 300, 0.1 * rng.standard_normal(300 * 320)
    columns = rng.random((frames if real else 0, 28), np.float32)
    mouth = rng.random((frames, len(CHANNELS)), np.float32)
    return Clip(name, pcm.astype(np.float32), np.zeros(frames, np.int8), mouth, columns)


def test_a_mouth_trained_on_hubert_is_one_that_the_engine_loads(
    models: Path, tmp_path: Path
) -> None:
    (tmp_path / "hubert-base").symlink_to(models / "hubert-base")
    work = motion_checkpoint("hubert-base", 160, tmp_path).parent
    work.mkdir()
    clips = [recording("filmed", real=True), recording("made", real=False)]
    config = MotionTraining(steps=2, batch=2, animated_pieces=1, synthetic_pieces=1, noise_pieces=1)
    lessons = prepare(clips, choose_encoder("hubert-base", work, tmp_path), config)
    assert {lesson.features.shape for lesson in lessons} == {(2 * PIECE, SIZES["hidden_size"])}
    train(lessons, spreads(clips), config, work, 10)
    encoder, mouth = load_hubert_motion("hubert-base", tmp_path, hop_ms=160)
    heard = encoder.step(encoder.start(), clips[0].pcm)
    assert mouth.step(mouth.start(), heard).shape > (100, 51)
    with pytest.raises(WeightsError, match="hubert-large"):
        choose_encoder("hubert-large", work, tmp_path)
