"""Options that several commands share: each group is a frozen dataclass, each option defined once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.config import (
    LARGEST_SIDE,
    Adapter,
    BackendName,
    Compile,
    Conditioning,
    FaceEncoderName,
    FewStep,
    LongVideo,
    MotionModules,
    Profile,
    RandomWeights,
    SamplerName,
    SpeechEncoderName,
    Use,
)
from engine.option_groups import given

SD15 = "Profile sd15"
CALM = "The head only sways a little, in place of turning and nodding with the speech."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What every engine is loaded with."""

    threads: Annotated[
        int | None, typer.Option(help="CPU threads of one graph; as measured at start.")
    ] = None
    backend: Annotated[
        BackendName | None,
        typer.Option(
            metavar="<name>",
            help="Run time of the embedded networks. CPU: openvino (the default), onnxruntime. "
            "NVIDIA GPU, never tried yet: tensorrt-rtx, tensorrt; cuda and ort-tensorrt by ONNX "
            "Runtime.",
        ),
    ] = None
    profile: Annotated[
        Profile, typer.Option(help="tiny: in the package. sd15: public checkpoints of your own.")
    ] = "tiny"
    num_inference_steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            "--num-inference-steps",
            help="Denoising steps a frame. tiny: 1; sd15: 30 offline, 4 live.",
        ),
    ] = None
    speech: Annotated[
        SpeechEncoderName | None,
        typer.Option(
            metavar="<name>",
            help="Speech encoder. tiny: in the package, looks 80 ms ahead. hubert-base, hubert-large: "
            "public checkpoints, and a motion network that you train on them.",
        ),
    ] = None
    speech_hop_ms: Annotated[
        int | None,
        typer.Option(
            "--speech-hop",
            help="HuBERT hears every so many ms: 40, 80, 120 or 160. It looks 120 ms further ahead "
            "than that; half the hop is twice the work. 160.",
        ),
    ] = None
    calm: Annotated[bool | None, typer.Option("--calm", help=CALM)] = None

    def common(self) -> dict[str, Any]:
        """The options that were given, as fields of `EngineConfig`, but the profile."""
        return {name: value for name, value in given(self).items() if name != "profile"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShownOptions:
    """How a person is shown in a video."""

    face: Annotated[
        int | None,
        typer.Option(help="Which face talks, counted from the left; the largest without it."),
    ] = None
    background: Annotated[
        str,
        typer.Option(
            help="Behind transparent parts: a colour (white, #20a040) or an image. Without it they "
            "stay transparent in PNG, .mov (ProRes 4444) and .webm (VP9), and are grey elsewhere."
        ),
    ] = ""
    prompt: Annotated[
        str, typer.Option(help='What the face expresses: "smile 0.6, brows up"; sd15: any words.')
    ] = ""
    seed: Annotated[int, typer.Option(help="The same seed gives the same video.")] = 0
    max_side: Annotated[
        int | None,
        typer.Option(
            help="Pixels of the longer side at most; the portrait is scaled down to them. "
            f"{LARGEST_SIDE}; sd15: 1024."
        ),
    ] = None


def _sd15(said: str) -> Any:
    return typer.Option(help=said, rich_help_panel=SD15)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How sd15 samples."""

    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            "--guidance-scale",
            help="Classifier-free guidance; 1 and 0 are none.",
            rich_help_panel=SD15,
        ),
    ] = None
    sampler: Annotated[
        SamplerName | None,
        typer.Option(
            metavar="<name>",
            help="ddim, euler, dpm++, lcm or tcd (the last two load a LoRA).",
            rich_help_panel=SD15,
        ),
    ] = None
    identity_scale: Annotated[float | None, _sd15("Weight of the person's tokens: 0 to 4; 1.")] = (
        None
    )
    reference_scale: Annotated[float | None, _sd15("Weight of the portrait itself: 0 to 4; 1.")] = (
        None
    )
    control_scale: Annotated[
        float | None, _sd15("Weight of landmarks and placement: 0 to 4; 1.")
    ] = None
    text_scale: Annotated[float | None, _sd15("Weight of the prompt's words: 0 to 4; 1.")] = None
    structure_scale: Annotated[
        float | None,
        _sd15("faceid-plus-v2: weight of the face's picture beside who it is: 0 to 4; 1."),
    ] = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LongVideoOptions:
    """What sd15 can only do offline."""

    full_codec: Annotated[
        bool | None,
        typer.Option("--full-codec/--tiny-codec", help="Decoder.", rich_help_panel=SD15),
    ] = None
    long_video: Annotated[
        LongVideo | None,
        typer.Option(
            help="What ties frames together. cache: each sees the one before, as live (the "
            "default). fusion: progressive latent fusion, all frames at once in overlapping "
            "windows. neither: nothing.",
            rich_help_panel=SD15,
        ),
    ] = None
    window: Annotated[
        int | None, _sd15("Latent fusion: frames of a window, the portrait first; 16.")
    ] = None
    overlap: Annotated[int | None, _sd15("Latent fusion: frames two windows share; 4.")] = None

    def diffusion(self) -> dict[str, Any]:
        """The options that were given, as fields of `DiffusionSettings`."""
        values = given(self)
        full = values.pop("full_codec", None)
        return values if full is None else {**values, "codec": "full" if full else "tiny"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """What sd15 loads."""

    models_dir: Annotated[
        Path | None, _sd15("Your folder of checkpoints; see `portraittalk models`.")
    ] = None
    sd15_file: Annotated[
        Path | None,
        _sd15("Stable Diffusion 1.5 in one .safetensors file, in place of its folder."),
    ] = None
    use: Annotated[
        Use | None, _sd15("commercial refuses checkpoints whose licence forbids it.")
    ] = None
    adapter: Annotated[
        Adapter | None,
        typer.Option(
            metavar="<name>",
            help="Identity: faceid, faceid-portrait, faceid-plus-v2 (with CLIP's picture of the face) "
            "or none.",
            rich_help_panel=SD15,
        ),
    ] = None
    few_step: Annotated[
        FewStep | None,
        typer.Option(
            metavar="<name>",
            help="LoRA for few steps, with its own sampler and steps and no guidance: lcm-lora, "
            "tcd-lora (4 steps), hyper-sd-1step, hyper-sd-2steps.",
            rich_help_panel=SD15,
        ),
    ] = None
    face_encoder: Annotated[
        FaceEncoderName | None,
        typer.Option(
            metavar="<name>",
            help="Face encoder: insightface (buffalo_l), antelopev2, auraface, sface, tiny or clip; a "
            "trained run knows its own.",
            rich_help_panel=SD15,
        ),
    ] = None
    random_weights: Annotated[
        RandomWeights | None,
        typer.Option(
            help="Load nothing and draw with random weights: the images are noise. For trying out "
            "how it works and how fast.",
            rich_help_panel=SD15,
        ),
    ] = None
    trained: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run folder of `portraittalk train` or `distill`. It knows how it was trained, and is "
            "drawn with just so: sampler, steps, face encoder, switches.",
            rich_help_panel=SD15,
        ),
    ] = None
    conditioning: Annotated[
        Conditioning | None,
        typer.Option(
            help="A trained run knows its own. portraittalk: all landmarks (the default). "
            "difftalk: masked frame, reference, landmarks without mouth and jaw, and the speech "
            "itself.",
            rich_help_panel=SD15,
        ),
    ] = None
    output_scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2,
            help="2: frames twice as large, by the enlarger that the codec stage of --trained learnt.",
            rich_help_panel=SD15,
        ),
    ] = None
    history: Annotated[int | None, _sd15("Frames before that a frame sees: 1 to 8; 1.")] = None
    motion_modules: Annotated[
        MotionModules | None, _sd15("AnimateDiff's motion modules, which see frames before.")
    ] = None
    compile: Annotated[
        Compile | None,
        typer.Option(
            metavar="<name>",
            help="On an NVIDIA GPU, never tried yet. cudagraphs: record a denoising step and replay "
            "it. tensorrt-rtx, tensorrt: so until the engine that `portraittalk export` builds is "
            "there, then that.",
            rich_help_panel=SD15,
        ),
    ] = None
