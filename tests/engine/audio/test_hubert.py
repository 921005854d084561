"""The public HuBERT heard in chunks: the two laws, for both of its families."""

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from transformers import HubertConfig, HubertModel

from engine.audio.hubert import FIELD, STRIDE, ChunkedHubert, HubertWindow, hubert_spec
from engine.backends import load_backend
from engine.backends.torch_graph import TorchGraph
from engine.errors import ConfigError
from engine.nets.hubert_graph import HubertGraph
from exports.hubert import export_hubert

pytestmark = pytest.mark.train
WINDOW = HubertWindow(left=10, hop=4, ahead=2)


def small(norm: str) -> HubertModel:
    """HuBERT of base's ("group") or large's ("layer") make, a thousand times smaller."""
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
    )
    return HubertModel(config).eval()


MODELS = {norm: small(norm) for norm in ("group", "layer")}


def encoder_of(norm: str, window: HubertWindow = WINDOW) -> ChunkedHubert:
    module = HubertGraph(MODELS[norm], window)
    return ChunkedHubert(TorchGraph(module, hubert_spec(window, module.width)), window)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1


@pytest.mark.parametrize("norm", MODELS)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 9000), max_size=5))
def test_the_cuts_do_not_matter(norm: str, cuts: list[int]) -> None:
    encoder, pcm = encoder_of(norm), noise(9000)
    whole = encoder.step(encoder.start(), pcm)
    state = encoder.start()
    pieces = [encoder.step(state, piece) for piece in np.split(pcm, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("norm", MODELS)
def test_later_sound_changes_nothing_earlier(norm: str) -> None:
    encoder, pcm = encoder_of(norm), noise(12_000)
    other = pcm.copy()
    other[6000:] = 0.5
    a, b = (encoder.step(encoder.start(), x) for x in (pcm, other))
    known = [
        k
        for k in range(len(a))
        if STRIDE * (WINDOW.hop * (k // WINDOW.hop + 1) + WINDOW.ahead) + FIELD - STRIDE <= 6000
    ]
    np.testing.assert_array_equal(a[known], b[known])
    assert not np.allclose(a[len(known)], b[len(known)])


def test_a_window_is_what_the_public_model_says_of_it() -> None:
    model, pcm = MODELS["group"], noise(20 * STRIDE)
    encoder = encoder_of("group")
    heard = encoder.step(encoder.start(), pcm)
    first = 2 * WINDOW.hop  # the third window, whose past is not yet all its own
    cut = np.concatenate([np.zeros(2 * STRIDE, np.float32), pcm])[: 16 * STRIDE + FIELD - STRIDE]
    cut = (cut - cut.mean()) / np.sqrt(cut.var() + 1e-7)
    with torch.no_grad():
        wanted = model(torch.from_numpy(cut)[None]).last_hidden_state[0, 10:14].numpy()
    np.testing.assert_allclose(heard[first : first + 4], wanted, atol=1e-5)


@pytest.mark.parametrize("hop", [2, 4, 6, 8])
def test_every_hop_gives_a_frame_s_features_each_40_ms(hop: int) -> None:
    """No frame waits for the rest of its window, and none comes with a crowd."""
    window = HubertWindow(left=10, hop=hop, ahead=3)
    encoder = encoder_of("layer", window)
    state, sound = encoder.start(), noise(20 * 640)
    counts = [len(encoder.step(state, sound[i : i + 640])) for i in range(0, len(sound), 640)]
    first = -(-window.delay // 640) - 1
    assert counts == [0] * first + [2] * (20 - first)
    whole = encoder.step(encoder.start(), sound)
    assert whole.shape == (2 * (20 - first), encoder.width)


def test_several_streams_hear_what_each_hears_alone() -> None:
    encoder, sounds = encoder_of("group"), [noise(n)[::-1].copy() for n in (9000, 4000, 10)]
    alone = [encoder.step(encoder.start(), sound) for sound in sounds]
    for one, other in zip(
        encoder.step_many([(encoder.start(), sound) for sound in sounds]), alone, strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("norm", MODELS)
def test_exported_it_hears_the_same(norm: str, tmp_path: Path) -> None:
    module = HubertGraph(MODELS[norm], WINDOW)
    path = tmp_path / "hubert.onnx"
    assert export_hubert(module, WINDOW, path) < 1e-3
    spec, wanted = hubert_spec(WINDOW, module.width), encoder_of(norm).step
    for name in ("openvino", "onnxruntime"):
        graph = load_backend(name, threads=1).load(replace(spec, precision="f32"), path)
        heard = ChunkedHubert(graph, WINDOW)
        state = heard.start()
        np.testing.assert_allclose(
            heard.step(state, noise(9000)), wanted(encoder_of(norm).start(), noise(9000)), atol=1e-3
        )


def test_silence_stays_finite() -> None:
    encoder = encoder_of("group")
    assert np.isfinite(encoder.step(encoder.start(), np.zeros(8000, np.float32))).all()


@pytest.mark.parametrize("bad", [{"hop": 3}, {"hop": 0}, {"left": -1}, {"ahead": -1}])
def test_impossible_windows_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="even hop"):
        HubertWindow(**bad)


def test_sound_of_another_shape_is_refused() -> None:
    encoder = encoder_of("group")
    with pytest.raises(ValueError, match="float32"):
        encoder.step(encoder.start(), np.zeros((2, 10), np.float32))
