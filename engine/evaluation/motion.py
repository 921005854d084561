"""Measures the speech encoder and the motion decoder as they stream: `python -m engine.evaluation.motion --help`.

Everything is measured on the exported graphs through the live code, hop by hop.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from engine.audio.sound_file import read_audio
from engine.audio.speech_encoder import SPEECH, StreamingSpeechEncoder
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.evaluation.alignment import Aligner, read_transcripts
from engine.face import arkit
from engine.motion.channels import ARKIT_GROUPS, CHANNELS, spread_matrix
from engine.motion.decoder import MOTION, MotionDecoder
from engine.offline.motion_file import run
from engine.training.motion.dataset import HELD_OUT, load_animated, load_synthetic
from engine.training.speech.espeak import Espeak

F32 = NDArray[np.float32]
FPS = 25


def load(
    config: EngineConfig, threads: int = 1, style: float = 0.0
) -> tuple[StreamingSpeechEncoder, MotionDecoder]:
    """The speech encoder and the motion decoder of a weights folder."""
    backend = load_backend(config.backend, threads=threads)
    encoder = StreamingSpeechEncoder(backend.load(SPEECH, config.weights / "speech.onnx"))
    graph = backend.load(MOTION, config.weights / "motion.onnx")
    return encoder, MotionDecoder(graph, encoder.silence, style=style)


def channels_of(coefficients: F32) -> F32:
    """Coefficients (T, 52) -> channels (T, 12): the mean of left and right."""
    matrix = spread_matrix().T
    return coefficients @ (matrix / matrix.sum(0))


def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Pearson correlation of two tracks (T,); 0 when one of them does not move."""
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def group(track: F32, name: str) -> F32:
    """Sum (T,) of the channels of a group; `track` (T, 12) holds all."""
    return track[:, [CHANNELS.index(c) for c in ARKIT_GROUPS[name]]].sum(1)


def held_out(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, folder: Path
) -> dict[str, Any]:
    """Correlation with the animators' weights on recordings never trained on."""
    report: dict[str, Any] = {}
    for clip in load_animated(folder)[0]:
        if clip.name not in HELD_OUT:
            continue
        said = channels_of(run(encoder, decoder, clip.pcm).coefficients)
        frames = min(len(said), len(clip.mouth) // 2)
        wanted = clip.mouth[: 2 * frames].reshape(frames, 2, -1).mean(1)
        report[clip.name] = {
            name: round(correlation(group(said[:frames], name), group(wanted, name)), 3)
            for name in ARKIT_GROUPS
        }
    report["mean"] = {
        name: round(float(np.mean([report[f][name] for f in HELD_OUT])), 3) for name in ARKIT_GROUPS
    }
    return report


def closure(channels: F32) -> F32:
    """How far the lips are shut (T,): pressing, rolling in and closing, less opening."""

    def get(name: str) -> F32:
        return channels[:, CHANNELS.index(name)]

    shut = get("mouthPress") + get("mouthRollLower") + get("mouthRollUpper") + get("mouthClose")
    return shut - get("jawOpen") - 0.5 * (get("mouthLowerDown") + get("mouthUpperUp"))


def closures(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, folder: Path
) -> dict[str, Any]:
    """Share of p, b, m in real speech at which the lips meet, and of vowels at which they part."""
    hits: dict[str, list[bool]] = {"pbm": [], "open vowel": []}
    jaws: list[F32] = []
    aligner = Aligner(Espeak().ipa)
    for name, words in read_transcripts(folder).items():
        pcm = read_audio(folder / f"{name}.flac")
        said = channels_of(run(encoder, decoder, pcm).coefficients)
        jaws.append(said)
        shut = closure(said)
        for phone in aligner.align(pcm, words):
            first, last = int((phone.start - 0.03) * FPS), int((phone.end + 0.03) * FPS) + 1
            if phone.name in ("P", "B", "M"):
                hits["pbm"].append(bool(shut[max(first, 0) : last].max() > 0))
            elif phone.name in ("AA", "AE", "AO", "AY", "AW"):
                hits["open vowel"].append(bool(shut[max(first, 0) : last].min() < -0.1))
    report: dict[str, Any] = {k: round(float(np.mean(v)), 3) for k, v in hits.items()}
    report["count"] = {k: len(v) for k, v in hits.items()}
    report["distribution"] = distribution(np.concatenate(jaws))
    return report


def distribution(channels: F32) -> dict[str, list[float]]:
    """Mean, standard deviation and maximum of every channel of (T, 12), by name."""
    return {
        name: [round(float(f(channels[:, i])), 3) for f in (np.mean, np.std, np.max)]
        for i, name in enumerate(CHANNELS)
    }


def quiet(
    encoder: StreamingSpeechEncoder,
    decoder: MotionDecoder,
    seconds: float = 12.0,
    known: float = 8.0,
) -> dict[str, float]:
    """Largest mouth coefficient over sounds in which nobody speaks, as they begin and once known (8 s)."""
    n, rng = int(seconds * 16_000), np.random.default_rng(0)
    time = np.arange(n) / 16_000
    swell = 0.03 * (1 + np.sin(2 * np.pi * 0.3 * time)) * rng.standard_normal(n)
    sounds = {
        "silence": np.zeros(n),
        "hiss -50 dB": 10**-2.5 * rng.standard_normal(n),
        "slow swell": swell,
        "hum": 0.05 * np.sin(2 * np.pi * 100 * time),
        "mains buzz": np.sum(
            [0.05 / k * np.sin(2 * np.pi * 50 * k * time + k) for k in range(1, 20)], 0
        ),
    }
    report = {}
    for name, sound in sounds.items():
        mouths = run(encoder, decoder, sound.astype(np.float32)).coefficients[:, arkit.MOUTH].max(1)
        report[name] = round(float(mouths[int(known * FPS) :].max()), 3)
        report[f"{name}, as it begins"] = round(float(mouths[: int(known * FPS)].max()), 3)
    return report


def by_rule(
    encoder: StreamingSpeechEncoder, decoder: MotionDecoder, folder: Path
) -> dict[str, Any]:
    """Correlation with the phone rules on synthetic voices, by group of coefficients."""
    said, wanted = [], []
    for clip in load_synthetic(folder):
        frames = len(clip.mouth) // 2
        said.append(channels_of(run(encoder, decoder, clip.pcm).coefficients)[:frames])
        wanted.append(clip.mouth[: 2 * frames].reshape(frames, 2, -1).mean(1))
    a, b = np.concatenate(said), np.concatenate(wanted)
    report = {name: round(correlation(group(a, name), group(b, name)), 3) for name in ARKIT_GROUPS}
    report["lip gap"] = round(correlation(closure(a), closure(b)), 3)
    return report


def loudness(encoder: StreamingSpeechEncoder, decoder: MotionDecoder, pcm: F32) -> dict[str, float]:
    """Mean jaw opening at several levels over that at the level of `pcm` (N,), at 16 kHz."""

    def jaw(decibel: float) -> float:
        sound = (pcm * 10 ** (decibel / 20)).astype(np.float32)
        return float(run(encoder, decoder, sound).coefficients[:, arkit.index("jawOpen")].mean())

    usual = jaw(0)
    return {f"{d:+d} dB": round(jaw(d) / usual, 2) for d in (-20, -10, 6)}


def main(
    weights: Annotated[Path, typer.Option(help="folder with speech.onnx and motion.onnx")],
    animated: Annotated[Path | None, typer.Option(help="folder of the animated recordings")] = None,
    english: Annotated[
        Path | None, typer.Option(help="folder of LJSpeech clips, metadata.csv")
    ] = None,
    synthetic: Annotated[
        Path | None,
        typer.Option(help="folder of unseen synthetic speech (engine.training.speech.data)"),
    ] = None,
) -> None:
    """Print one JSON object."""
    encoder, decoder = load(EngineConfig(weights=weights))
    report: dict[str, Any] = {"quiet": quiet(encoder, decoder)}
    if animated is not None:
        _, as_animated = load(EngineConfig(weights=weights), style=1.0)
        report["held_out, style 1"] = held_out(encoder, as_animated, animated)
        report["held_out, style 0"] = held_out(encoder, decoder, animated)
    if english is not None:
        report["english"] = closures(encoder, decoder, english)
        first = sorted(english.glob("*.flac"))[0]
        report["loudness"] = loudness(encoder, decoder, read_audio(first))
    if synthetic is not None:
        report["synthetic"] = by_rule(encoder, decoder, synthetic)
    typer.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)
