"""The motion network and its training, at small size."""

# ruff: noqa: E402  torch may be missing

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.motion.channels import CHANNELS
from engine.nets.motion_vae import MotionSettings, MotionVae
from engine.nets.speech_stem import PAST
from engine.training.loop import LoopSettings, run_loop
from engine.training.motion.dataset import MAPPING, Clip, load_talks, map_columns
from engine.training.motion.examples import (
    PIECE,
    Example,
    MotionTraining,
    batch_of,
    energy_of,
    prepare,
    shares,
)
from engine.training.motion.loss import concordance, loss_of
from engine.training.motion.train import load_motion, motion_trainer
from engine.training.speech.data import write_shard
from engine.training.speech.phones import INDEX, Phone

pytestmark = pytest.mark.train
TINY = MotionSettings(features=6, words=2, hidden=16, latent=4, prior=(1, 2), decoder=(1,))
NAMES = sorted({c for parts in MAPPING.values() for c in parts})


def example(real: bool) -> Example:
    """A mouth whose jaw is feature 0 and whose press is feature 1, as of the same frame."""
    rng = np.random.default_rng(int(real))
    jaw = np.repeat(rng.random(PIECE // 5), 5)
    features = np.zeros((2 * PIECE, 6))
    features[:, 0] = np.repeat(jaw, 2)
    mouth = np.zeros((PIECE, len(CHANNELS)))
    mouth[:, 0] = jaw
    columns = np.tile(jaw[:, None], (1, 28))
    half = lambda x: x.astype(np.float16)
    return Example(half(features), half(mouth), half(columns), half(jaw), real)


def test_frame_by_frame_decodes_what_the_whole_decodes() -> None:
    torch.manual_seed(0)
    net = MotionVae(TINY).eval()
    features, noise, style = torch.randn(1, 40, 6), torch.randn(1, 20, 4), torch.ones(1, 1)
    with torch.no_grad():
        whole = net(features, noise, style, net.remember()).channels
        memory, parts = net.remember(), []
        for t in range(20):
            out = net(features[:, 2 * t : 2 * t + 2], noise[:, t : t + 1], style, memory)
            memory = out.memory
            parts.append(out.channels)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


def test_only_the_rules_hear_the_words() -> None:
    torch.manual_seed(0)
    net = MotionVae(TINY).eval()
    torch.nn.init.normal_(net.channels.weight)
    features, noise = torch.randn(1, 8, 6), torch.zeros(1, 4, 4)
    other = features.clone()
    other[..., : TINY.words] += 1

    def mouths(heard: torch.Tensor, style: float) -> torch.Tensor:
        return net(heard, noise, torch.full((1, 1), float(style)), net.remember()).channels

    with torch.no_grad():
        torch.testing.assert_close(mouths(other, 1), mouths(features, 1))
        assert (mouths(other, 0) - mouths(features, 0)).abs().max() > 1e-3


@pytest.mark.parametrize("features", [6, MotionSettings().features])
def test_another_speech_encoder_has_one_layer_that_all_styles_read(features: int) -> None:
    settings = MotionSettings.hearing(features)
    assert settings.features == features
    assert settings.words == (0 if features == 6 else MotionSettings().words)


def test_concordance_wants_the_same_size_as_well_as_the_same_course() -> None:
    torch.manual_seed(0)
    track = torch.rand(2, 50, 3)
    torch.testing.assert_close(concordance(track, track), torch.ones(3), atol=0.01, rtol=0)
    assert (concordance(0.2 * track, track) < 0.5).all()
    assert (concordance(track.flip(1), track) < 0.5).all()
    assert (concordance(track[:0], track[:0]) == 0).all()


def test_the_posterior_sees_the_motion_and_the_prior_does_not() -> None:
    torch.manual_seed(0)
    net = MotionVae(TINY).eval()
    for head in (net.channels, net.columns):
        torch.nn.init.normal_(head.weight)
    features, motion, style = torch.randn(1, 40, 6), torch.rand(1, 20, 12), torch.zeros(1, 1)
    with torch.no_grad():
        torch.manual_seed(1)
        told, likely, gap = net.learn(features, style, motion)
        torch.manual_seed(1)
        told_other, likely_other, _ = net.learn(features, style, 1 - motion)
    torch.testing.assert_close(likely.channels, likely_other.channels)
    assert (told.channels - told_other.channels).abs().max() > 1e-4
    assert gap > 0


def test_features_are_heard_two_frames_after_their_mouth() -> None:
    examples = [example(True), example(False)]
    batch = batch_of(examples, MotionTraining(batch=4, frames=30), 0)
    heard = batch["features"][:, ::2, 0]
    torch.testing.assert_close(heard[:, :-2], batch["mouth"][:, 2:, 0])
    assert batch["features"].shape == (4, 60, 6)
    assert {0.0, 1.0} >= set(batch["real"].tolist())


def talking() -> Clip:
    """A sound of 11 s whose jaw opens by its level."""
    frames = 550
    jaw = np.repeat(np.random.default_rng(3).random(frames // 10), 10).astype(np.float32)
    hiss = np.random.default_rng(4).standard_normal(frames * 320)
    mouth = np.zeros((frames, len(CHANNELS)), np.float32)
    mouth[:, 0] = jaw
    pcm = (0.1 * np.repeat(jaw, 320) * hiss).astype(np.float32)
    return Clip("made", pcm, np.zeros(frames, np.int8), mouth, np.zeros((0, 28), np.float32))


def test_kept_features_outlast_a_change_of_the_mouths_but_not_of_the_sound(tmp_path: Path) -> None:
    heard = []

    def encoder(pcm: np.ndarray) -> np.ndarray:
        heard.append(len(pcm))
        return np.repeat(pcm[PAST:].reshape(-1, 320).std(1)[:, None], 6, 1)

    config = MotionTraining(animated_pieces=0, synthetic_pieces=2, noise_pieces=1)
    clip = talking()
    first = prepare([clip], encoder, config, tmp_path)
    assert len(heard) == 3
    clip.mouth[:, 1] = 0.7
    again = prepare([clip], encoder, config, tmp_path)
    assert len(heard) == 3
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.features, b.features)
    assert again[0].mouth[:, 1].max() > 0.6 > first[0].mouth[:, 1].max()
    clip.pcm = clip.pcm[::-1].copy()
    prepare([clip], encoder, config, tmp_path)
    assert len(heard) == 5  # the piece of noise is the same


def test_sentences_of_a_talk_keep_their_phones_at_their_sound(tmp_path: Path) -> None:
    def one(rng: random.Random) -> tuple[np.ndarray, list[Phone]]:
        sound = np.zeros(8_000, np.float32)
        sound[3_200:6_400] = 0.2 * np.random.default_rng(rng.randint(0, 99)).standard_normal(3_200)
        return sound, [Phone("sil", 0, 0.2), Phone("AA", 0.2, 0.4), Phone("sil", 0.4, 0.5)]

    write_shard(tmp_path / "hiss_0000.npz", SimpleNamespace(say=one), "a")
    talks = list(load_talks(tmp_path))
    assert len(talks) == 4
    for talk in talks:
        level = talk.pcm.reshape(-1, 320).std(1)
        said = talk.phone == INDEX["AA"]
        assert said.sum() == 5 * 10
        assert level[said].min() > 0.05
        assert (level[~said] < 0.01).mean() > 0.95
        assert 5 * 0.6 <= len(talk.pcm) / 16_000 <= 5 * 2.0
        jaw = talk.mouth[:, CHANNELS.index("jawOpen")]
        assert jaw[said].mean() > 2 * jaw[~said].mean()


def test_a_lead_moves_the_mouth_ahead_of_its_sound() -> None:
    def jaws(lead: int) -> np.ndarray:
        config = MotionTraining(animated_pieces=0, synthetic_pieces=1, noise_pieces=0, lead=lead)
        one = prepare([talking()], lambda pcm: np.zeros((2 * PIECE, 6)), config)[0]
        return one.mouth[:, 0].astype(np.float32)

    np.testing.assert_allclose(jaws(4)[:-2], jaws(0)[2:], atol=1e-3)


SPREAD = {"mouth_var": torch.full((2, 12), 0.05), "columns_var": torch.full((28,), 0.05)}


def state_after(work: Path, *steps: int) -> dict[str, torch.Tensor]:
    """Averaged weights after a run of `steps[-1]` steps, stopped where the others say."""
    work.mkdir()
    examples = [example(True), example(False)]
    torch.set_num_threads(1)
    torch.manual_seed(len(steps))  # what was drawn before a run does not matter
    for last in steps:
        config = MotionTraining(steps=steps[-1], batch=2, frames=30)
        path = work / "motion.pt"
        trainer = motion_trainer(examples, SPREAD, config, path)
        run_loop(trainer, path, LoopSettings(name="m", steps=last, save_every=9, quiet=True))
    assert torch.load(path, weights_only=True)["step"] == steps[-1]
    return load_motion(path).state_dict()


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole, parts = state_after(tmp_path / "a", 5), state_after(tmp_path / "b", 3, 5)
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], rtol=0, atol=0)


def test_training_lowers_the_loss_of_what_it_has_seen(tmp_path: Path) -> None:
    examples = [example(True), example(False)]
    config = MotionTraining(steps=40, batch=4, frames=30, rate=5e-3)
    batch = batch_of(examples, config, 99)

    def loss_after(steps: int) -> float:
        path = tmp_path / "motion.pt"
        trainer = motion_trainer(examples, SPREAD, config, path)
        run_loop(trainer, path, LoopSettings(name="m", steps=steps, save_every=99, quiet=True))
        torch.manual_seed(0)
        with torch.no_grad():
            parts = loss_of(trainer.net.eval(), batch, SPREAD, config.kl)
        assert all(torch.isfinite(part) for part in parts.values())
        return float(sum(parts.values()))

    before = loss_after(0)
    assert loss_after(40) < 0.8 * before


def test_animators_columns_become_channels_by_the_recipe() -> None:
    columns = np.zeros((2, len(NAMES)), np.float32)
    columns[0, NAMES.index("mouth_stretch_c")] = 0.5
    columns[0, NAMES.index("mouth_oh_c")] = 0.4
    columns[1, NAMES.index("mouth_press_l")] = 0.6
    got = map_columns(columns, NAMES)
    assert got[0, CHANNELS.index("jawOpen")] == pytest.approx(0.45)
    assert got[0, CHANNELS.index("mouthFunnel")] == pytest.approx(0.2)
    assert got[1, CHANNELS.index("mouthPress")] == pytest.approx(0.3)


def test_a_series_of_few_recordings_is_heard_more_often_than_its_share() -> None:
    def clip(name: str, frames: int) -> Clip:
        blank = np.zeros((frames, 1), np.float32)
        return Clip(name, blank[:, 0], np.zeros(frames, np.int8), blank, blank)

    much, more, little = shares([clip("2_01", 300), clip("2_02", 600), clip("3_15", 100)])
    assert much + more + little == pytest.approx(1)
    assert more == pytest.approx(2 * much)
    assert little == pytest.approx(0.25)  # sqrt(100) of sqrt(100) + sqrt(900)


def test_energy_follows_loudness_not_level() -> None:
    rng = np.random.default_rng(0)
    envelope = np.repeat([0.0, 1.0, 0.3, 0.0], 640 * 10)
    pcm = np.r_[np.zeros(PAST), 0.2 * envelope * rng.standard_normal(640 * 40)].astype(np.float32)
    loud, quiet = energy_of(pcm, 40), energy_of(pcm * np.float32(0.3), 40)
    assert loud[:8].max() < 0.05 < 0.5 < loud[12:18].min()
    assert loud[22:28].max() < loud[12:18].min()
    np.testing.assert_allclose(loud, quiet, atol=0.03)
