"""The speech encoder at tiny size: streaming equals whole, training learns, runs go on."""

# ruff: noqa: E402  torch may be missing

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.motion.channels import CHANNELS
from engine.nets.moonshine import StreamingMoonshine
from engine.nets.speech_stem import PAST, STRIDE, SpeechSettings
from engine.training.loop import LoopSettings, run_loop
from engine.training.motion.dataset import Clip
from engine.training.speech.augment import cut, noise_only, roughen
from engine.training.speech.data import read_shard, write_shard
from engine.training.speech.phones import PHONES, Phone
from engine.training.speech.tasks import WIDTH, SpeechTasks, SpeechTraining, batch_of, variances
from engine.training.speech.text import mandarin, pinyin_ipa, sentence
from engine.training.speech.train import first_model, speech_trainer

pytestmark = pytest.mark.train
TINY = SpeechSettings(hidden=16, layers=2, heads=2, inner=32, rotary=4, context=6, mels=8)


def clip(name: str, seconds: float, real: bool = False) -> Clip:
    rng = np.random.default_rng(len(name))
    frames = int(seconds * 50)
    phone = np.repeat(rng.integers(0, len(PHONES), frames // 5 + 1), 5)[:frames].astype(np.int8)
    pcm = (0.1 * rng.standard_normal(frames * 320)).astype(np.float32)
    columns = rng.random((frames if real else 0, 28), np.float32)
    mouth = rng.random((frames, len(CHANNELS)), np.float32)
    return Clip(name, pcm, phone, mouth, columns, np.ones((frames, WIDTH), np.float32))


def hop_by_hop(net: StreamingMoonshine, pcm: torch.Tensor) -> torch.Tensor:
    memory, pieces = net.remember(len(pcm)), []
    for first in range(0, pcm.shape[1] - PAST, 640):
        features, memory = net.step(pcm[:, first : first + PAST + 640], memory)
        pieces.append(features)
    return torch.cat(pieces, 1)


def test_hop_by_hop_hears_what_the_whole_hears() -> None:
    torch.manual_seed(0)
    net = StreamingMoonshine(TINY).eval()
    pcm = torch.linspace(0.3, 0.01, PAST + 640 * 24) * torch.randn(2, PAST + 640 * 24)
    with torch.no_grad():
        whole = net(pcm, net.remember(2))
        torch.testing.assert_close(hop_by_hop(net, pcm), whole, atol=1e-5, rtol=1e-4)


def test_training_and_streaming_agree_once_the_memory_is_full_of_sound() -> None:
    """Without a memory nothing is there before the sound; deep in it both see the same past."""
    torch.manual_seed(0)
    net = StreamingMoonshine(TINY).eval()
    pcm = 0.1 * torch.randn(1, PAST + STRIDE * 60)
    with torch.no_grad():
        trained, streamed = net(pcm), hop_by_hop(net, pcm)
    late = slice(TINY.context * TINY.layers + TINY.ahead + 2, None)
    torch.testing.assert_close(streamed[:, late], trained[:, late], atol=1e-5, rtol=1e-4)
    assert (streamed[:, :4] - trained[:, :4]).abs().max() > 1e-3


def test_a_louder_sound_is_heard_alike_and_a_softer_one_after_a_while() -> None:
    torch.manual_seed(0)
    net = StreamingMoonshine(TINY).eval()
    pcm = 0.05 * torch.randn(1, PAST + 640 * 400)
    with torch.no_grad():
        usual, soft = (net(pcm * gain)[..., : TINY.hidden] for gain in (1.0, 0.25))
        faded = pcm.clone()
        faded[:, : PAST + 640 * 100] *= 4
        faded = net(faded)[..., : TINY.hidden]
    assert (usual - soft).abs().max() < 0.1 * usual.std()
    late = slice(-40, None)
    assert (usual - faded)[:, late].abs().max() < 0.1 * usual.std()


def test_no_frame_hears_the_future() -> None:
    torch.manual_seed(0)
    net = StreamingMoonshine(TINY).eval()
    a = 0.1 * torch.randn(1, PAST + STRIDE * 30)
    b = a.clone()
    b[:, PAST + STRIDE * 20 :] = 0.5
    with torch.no_grad():
        heard_a, heard_b = net(a), net(b)
    torch.testing.assert_close(heard_a[:, :20], heard_b[:, :20], atol=0, rtol=0)
    assert (heard_a[:, 20] != heard_b[:, 20]).any()


def run(
    clips: list[Clip], config: SpeechTraining, path: Path, until: int, start: Path | None = None
) -> dict[str, torch.Tensor]:
    """Train a tiny encoder up to step `until`; the averaged weights that are kept."""
    torch.set_num_threads(1)
    trainer = speech_trainer(first_model(config, start, TINY), clips, config, path)
    run_loop(trainer, path, LoopSettings(name="s", steps=until, save_every=99, quiet=True))
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == until
    return dict(saved["model"])


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    clips = [clip("a", 2, real=True), clip("bb", 2)]
    config = SpeechTraining(steps=6, batch=2, frames=40)
    whole = run(clips, config, tmp_path / "whole.pt", 6)
    early = run(clips, config, tmp_path / "parts.pt", 4)
    parts = run(clips, config, tmp_path / "parts.pt", 6)
    assert (parts["phone.weight"] != early["phone.weight"]).any()
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], rtol=0, atol=0)


def test_training_lowers_the_loss_of_what_it_has_seen(tmp_path: Path) -> None:
    clips = [clip("a", 2, real=True), clip("bb", 2)]
    config = SpeechTraining(steps=30, batch=4, frames=40, rate=5e-3, heads_rate=2e-2)
    path = tmp_path / "speech.pt"
    trainer = speech_trainer(first_model(config, None, TINY), clips, config, path)
    log: list[dict[str, float]] = []
    loop = LoopSettings(name="s", steps=30, save_every=99, quiet=True)
    run_loop(trainer, path, loop, lambda step, values: log.append(values) or values)
    for task in ("phone", "teacher"):
        values = [row[task] for row in log]
        assert np.isfinite(values).all()
        assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5]), task


def test_recordings_alone_whose_phones_nobody_knows_teach_too(tmp_path: Path) -> None:
    clips = [clip("a", 2, real=True), clip("bb", 2)]
    config = SpeechTraining(steps=2, batch=2, frames=40, animated_share=1.0, noise_share=0)
    tasks = SpeechTasks(TINY)
    batch = {k: torch.from_numpy(v) for k, v in batch_of(clips, config, 0).items()}
    losses = tasks(batch | variances(clips))
    assert all(torch.isfinite(v) for v in losses.values())


def test_a_new_run_begins_with_the_averaged_weights_of_another(tmp_path: Path) -> None:
    clips = [clip("a", 2, real=True), clip("bb", 2)]
    config = SpeechTraining(steps=2, batch=2, frames=40)
    first = run(clips, config, tmp_path / "a.pt", 2)
    still = replace(config, rate=0.0, heads_rate=0.0)
    started = run(clips, still, tmp_path / "b.pt", 2, start=tmp_path / "a.pt")
    for name, tensor in started.items():
        torch.testing.assert_close(tensor, first[name])


def test_batches_depend_on_the_seed_and_the_step_alone() -> None:
    clips = [clip("a", 2, real=True), clip("bb", 2)]
    config = SpeechTraining(batch=3, frames=40)
    first, again, other = (batch_of(clips, config, step) for step in (1, 1, 2))
    assert first.keys() == again.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert (first["pcm"] != other["pcm"]).any()


def test_a_cut_keeps_sound_and_labels_together() -> None:
    source = clip("a", 6)
    source.pcm[:] = np.repeat(np.arange(300), 320) / 300
    source.mouth[:] = (np.arange(300) / 300)[:, None]
    piece = cut(source, 100, np.random.RandomState(0), WIDTH)
    heard = piece.pcm[PAST:].reshape(100, 320).mean(1)
    inside = piece.mouth[:, 0] > 0
    assert inside.sum() > 80
    assert np.abs(heard - piece.mouth[:, 0])[inside].max() < 0.01


def test_roughened_speech_is_still_there_at_another_level() -> None:
    rng = np.random.RandomState(0)
    pcm = (0.2 * np.sin(np.arange(48_000) / 9)).astype(np.float32)
    levels = []
    for _ in range(12):
        rough = roughen(pcm, rng)
        assert rough.shape == pcm.shape
        assert rough.dtype == np.float32
        assert np.abs(rough).max() <= 1
        levels.append(np.sqrt(np.mean(rough**2)))
    assert max(levels) / min(levels) > 3


def test_noise_has_the_length_of_a_piece() -> None:
    noise = noise_only(50, np.random.RandomState(0))
    assert noise.shape == (PAST + 50 * STRIDE,)
    assert np.isfinite(noise).all()


class Beeper:
    """A voice that says one phone a sentence."""

    def say(self, rng: random.Random) -> tuple[np.ndarray, list[Phone]]:
        length = rng.randint(1600, 3200)
        return np.full(length, 0.5, np.float32), [Phone("AA", 0.0, length / 16_000)]


def test_a_speech_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    seconds = write_shard(tmp_path / "x_0000.npz", Beeper(), "7")
    said = list(read_shard(tmp_path / "x_0000.npz"))
    assert len(said) == 20
    assert sum(len(s.pcm) for s in said) / 16_000 == pytest.approx(seconds)
    assert said[3].phones[0].name == "AA"
    assert said[3].phones[0].end == pytest.approx(len(said[3].pcm) / 16_000, abs=1e-4)
    assert said[0].pcm[5] == pytest.approx(0.5, abs=1e-3)


def test_sentences_are_whole_and_repeatable() -> None:
    a, b = (sentence(random.Random(4)) for _ in range(2))
    assert a == b
    assert "{" not in "".join(sentence(random.Random(i)) for i in range(200))


def test_every_mandarin_syllable_can_be_spelt() -> None:
    for i in range(100):
        for syllable in mandarin(random.Random(i)):
            assert pinyin_ipa(syllable)
    assert pinyin_ipa("zhong1") == "ꭧʊŋ→"
    assert pinyin_ipa("xue2") == "ɕɥe↗"
    assert pinyin_ipa("you3") == "jou↓"
