"""The two laws for speech encoder and motion decoder, on the shipped graphs: cutting changes nothing, nor does the future."""

import numpy as np
import pytest

from engine.audio.speech_encoder import HOP, SPEECH, StreamingSpeechEncoder
from engine.backends import Graph, load_backend
from engine.config import EngineConfig
from engine.face import arkit
from engine.motion.decoder import LOOKAHEAD, MOTION, MotionDecoder
from engine.offline.motion_file import run

SECONDS = 3


@pytest.fixture(scope="module")
def encoder() -> StreamingSpeechEncoder:
    backend = load_backend("openvino", threads=1)
    return StreamingSpeechEncoder(backend.load(SPEECH, EngineConfig().weights / "speech.onnx"))


@pytest.fixture(scope="module")
def motion() -> Graph:
    backend = load_backend("openvino", threads=1)
    return backend.load(MOTION, EngineConfig().weights / "motion.onnx")


@pytest.fixture(scope="module")
def decoder(motion: Graph, encoder: StreamingSpeechEncoder) -> MotionDecoder:
    return MotionDecoder(motion, encoder.silence)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Something like speech: a buzz with moving formants and pauses."""
    rng = np.random.default_rng(0)
    n = SECONDS * 16_000
    time = np.arange(n) / 16_000
    buzz = np.sign(np.sin(2 * np.pi * 120 * time)) + 0.2 * rng.standard_normal(n)
    swell = np.clip(np.sin(2 * np.pi * 2.2 * time), 0, 1) * (np.sin(2 * np.pi * 0.4 * time) > -0.5)
    return (0.1 * buzz * swell).astype(np.float32)


def stream(
    encoder: StreamingSpeechEncoder,
    decoder: MotionDecoder,
    pcm: np.ndarray,
    cut: int,
    seed: int = 0,
) -> np.ndarray:
    hearing, moving = encoder.start(), decoder.start(seed)
    pieces = [pcm[i : i + cut] for i in range(0, len(pcm), cut)]
    return np.concatenate([decoder.step(moving, encoder.step(hearing, p)) for p in pieces])


@pytest.mark.parametrize("cut", [160, 639, 640, 960, 7001])
def test_how_the_sound_is_cut_changes_nothing(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, sound: np.ndarray, cut: int
) -> None:
    whole = stream(encoder, decoder, sound, len(sound))
    np.testing.assert_array_equal(stream(encoder, decoder, sound, cut), whole)
    assert whole.shape == (SECONDS * 25 - LOOKAHEAD, arkit.COUNT)
    assert whole.dtype == np.float32


@pytest.mark.parametrize("frame", [0, 10, 30])
def test_a_frame_hears_80_ms_beyond_itself_and_no_more(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, sound: np.ndarray, frame: int
) -> None:
    known = (frame + 1 + LOOKAHEAD) * HOP
    other = sound.copy()
    other[known:] = 0.5 * np.random.default_rng(1).standard_normal(len(sound) - known)
    a, b = stream(encoder, decoder, sound, 640), stream(encoder, decoder, other, 640)
    np.testing.assert_array_equal(a[: frame + 1], b[: frame + 1])
    assert (a[frame + 1 :] != b[frame + 1 :]).any()


def test_a_frame_comes_as_soon_as_its_look_ahead_is_there(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder
) -> None:
    hearing, moving = encoder.start(), decoder.start()
    for hop in range(6):
        came = decoder.step(moving, encoder.step(hearing, np.zeros(HOP, np.float32)))
        assert len(came) == len(moving.energy) == (hop >= LOOKAHEAD)


def test_a_file_moves_as_a_stream_does(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, sound: np.ndarray
) -> None:
    whole = run(encoder, decoder, sound).coefficients
    np.testing.assert_array_equal(
        whole[: SECONDS * 25 - LOOKAHEAD], stream(encoder, decoder, sound, 640)
    )
    assert len(whole) == SECONDS * 25


def test_streams_do_not_disturb_each_other(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, sound: np.ndarray
) -> None:
    alone = stream(encoder, decoder, sound, 640)
    one, two = (encoder.start(), decoder.start()), (encoder.start(), decoder.start())
    mixed = []
    for hop in sound.reshape(-1, HOP):
        mixed.append(decoder.step(one[1], encoder.step(one[0], hop)))
        decoder.step(two[1], encoder.step(two[0], hop[::-1].copy()))
    np.testing.assert_array_equal(np.concatenate(mixed), alone)


def test_feature_frames_are_split_at_will_too(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, sound: np.ndarray
) -> None:
    features = encoder.step(encoder.start(), sound)
    moving = decoder.start()
    parts = [decoder.step(moving, f) for f in np.array_split(features, 31)]
    np.testing.assert_array_equal(np.concatenate(parts), decoder.step(decoder.start(), features))


def test_temperature_varies_by_seed_alone(
    encoder: StreamingSpeechEncoder, motion: Graph, sound: np.ndarray
) -> None:
    lively = MotionDecoder(motion, encoder.silence, temperature=1.0)
    a, b = stream(encoder, lively, sound, 640, seed=1), stream(encoder, lively, sound, 961, seed=1)
    np.testing.assert_array_equal(a, b)
    assert (a != stream(encoder, lively, sound, 640, seed=2)).any()


@pytest.mark.parametrize("backend", ["onnxruntime"])
def test_the_second_run_time_agrees(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, sound: np.ndarray, backend: str
) -> None:
    other = load_backend(backend, threads=1)
    weights = EngineConfig().weights
    second_encoder = StreamingSpeechEncoder(other.load(SPEECH, weights / "speech.onnx"))
    second = MotionDecoder(other.load(MOTION, weights / "motion.onnx"), second_encoder.silence)
    got, want = stream(second_encoder, second, sound, 640), stream(encoder, decoder, sound, 640)
    np.testing.assert_allclose(got, want, atol=2e-3)
