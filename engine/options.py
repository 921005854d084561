"""Options that several commands share, as typer reads them, and the settings they become."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Codec(StrEnum):
    """Video codecs the server can send."""

    vp8 = "vp8"
    h264 = "h264"


class Profile(StrEnum):
    """What draws the pictures."""

    tiny = "tiny"
    sd15 = "sd15"


class RunTime(StrEnum):
    """What runs the embedded graphs."""

    openvino = "openvino"
    onnxruntime = "onnxruntime"
    cuda = "cuda"
    tensorrt = "tensorrt"


class Compile(StrEnum):
    """How the full-size nets are run on a GPU."""

    none = "none"
    cudagraphs = "cudagraphs"


class Use(StrEnum):
    """What the pictures are for; some checkpoints may not be used commercially."""

    commercial = "commercial"
    research = "research"


class Speech(StrEnum):
    """Whose speech features move the mouth."""

    tiny = "tiny"
    hubert_base = "hubert-base"
    hubert_large = "hubert-large"


class LongVideo(StrEnum):
    """What ties the frames of a video together."""

    cache = "cache"
    fusion = "fusion"
    neither = "neither"


class RandomWeights(StrEnum):
    """Sizes of networks with random weights."""

    small = "small"
    full = "full"


class Conditioning(StrEnum):
    """What the full-size nets are told of a frame."""

    portraittalk = "portraittalk"
    difftalk = "difftalk"


SD15 = "Profile sd15"
ProfileOption = Annotated[
    Profile, typer.Option(help="tiny: in the package. sd15: public checkpoints of your own.")
]
BackendOption = Annotated[
    RunTime | None,
    typer.Option(
        metavar="<name>",
        help="Run time of the embedded networks. CPU: openvino (the default), onnxruntime. NVIDIA "
        "GPU, never tried yet: cuda, tensorrt.",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads of one graph; 2.")]
StepsOption = Annotated[
    int | None,
    typer.Option(help="Denoising steps a frame. tiny: 1; sd15: 30 offline, 4 live."),
]
GuidanceOption = Annotated[
    float | None, typer.Option(help="Classifier-free guidance; 1 is none.", rich_help_panel=SD15)
]
SamplerOption = Annotated[
    str | None,
    typer.Option(
        help="ddim, euler, dpm++, lcm or tcd (the last two load a LoRA).", rich_help_panel=SD15
    ),
]
ModelsDirOption = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        help="Your folder of checkpoints; see `portraittalk models`.",
        rich_help_panel=SD15,
    ),
]
UseOption = Annotated[
    Use | None,
    typer.Option(
        help="commercial refuses checkpoints whose licence forbids it.", rich_help_panel=SD15
    ),
]
RandomOption = Annotated[
    RandomWeights | None,
    typer.Option(
        "--random-weights",
        rich_help_panel=SD15,
        help="Load nothing and draw with random weights: the pictures are noise. For trying "
        "out how it works and how fast.",
    ),
]
TrainedOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--trained",
        rich_help_panel=SD15,
        help="Run folder of `portraittalk train` or `distill`; may be given again.",
    ),
]
AdapterOption = Annotated[
    str | None,
    typer.Option(help="Identity: faceid, faceid-portrait or none.", rich_help_panel=SD15),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(help="Face encoder: insightface, auraface or sface.", rich_help_panel=SD15),
]
ConditioningOption = Annotated[
    Conditioning | None,
    typer.Option(
        rich_help_panel=SD15,
        help="What --trained was trained with. portraittalk: all landmarks (the default). difftalk: "
        "masked frame, reference, landmarks without mouth and jaw, and the speech itself.",
    ),
]
MixOption = Annotated[
    list[str] | None,
    typer.Option(help="Another person and how much: c.jpg:0.4.", rich_help_panel=SD15),
]
FullCodecOption = Annotated[
    bool | None,
    typer.Option("--full-codec/--tiny-codec", help="Decoder.", rich_help_panel=SD15),
]
CompileOption = Annotated[
    Compile | None,
    typer.Option(
        "--compile",
        help="cudagraphs: record a denoising step on an NVIDIA GPU and replay it; never tried yet.",
        rich_help_panel=SD15,
    ),
]
SpeechOption = Annotated[
    Speech | None,
    typer.Option(
        help="Speech encoder: tiny is in the package; a HuBERT needs a motion network trained on it.",
        rich_help_panel=SD15,
    ),
]
LongVideoOption = Annotated[
    LongVideo | None,
    typer.Option(
        help="What ties frames together. cache: each sees the one before, as live (the default). "
        "fusion: progressive latent fusion, all frames at once in overlapping windows. "
        "neither: nothing.",
        rich_help_panel=SD15,
    ),
]
WindowOption = Annotated[
    int | None,
    typer.Option(
        help="Latent fusion: frames of a window, the portrait first; 16.", rich_help_panel=SD15
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(help="Latent fusion: frames two windows share; 4.", rich_help_panel=SD15),
]


def given(**options: object) -> dict[str, object]:
    """The options that were given, by the names of their settings and as those hold them."""
    return {name: _plain(value) for name, value in options.items() if value is not None}


def _plain(value: object) -> object:
    if isinstance(value, StrEnum):
        return value.value
    return tuple(value) if isinstance(value, list) else value
