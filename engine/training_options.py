"""Options of `portraittalk prepare`, as a group; they are fields of `PrepareOptions`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from engine.config import MODELS_DIR


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PreparingOptions:
    """How talking videos become clips."""

    layout: Annotated[str, typer.Option(help="auto, plain, hdtf or mead.")] = "auto"
    size: Annotated[int, typer.Option(help="Pixels a side of a prepared image.")] = 512
    shard: Annotated[str, typer.Option(help="I/N: only every N-th video from the I-th.")] = "0/1"
    face_encoder: Annotated[
        str,
        typer.Option(
            help="tiny, sface, auraface, insightface (buffalo_l), antelopev2 or clip; insightface-clip "
            "for a run that starts from faceid-plus-v2."
        ),
    ] = "tiny"
    landmarks: Annotated[
        str,
        typer.Option(
            help="bundled: our landmark net's. mediapipe: MediaPipe's own (extra `label`, and "
            "face_landmarker.task of `portraittalk models`)."
        ),
    ] = "bundled"
    speech: Annotated[str, typer.Option(help="tiny, hubert-base or hubert-large.")] = "tiny"
    models_dir: Annotated[Path, typer.Option(help="Your folder of checkpoints.")] = MODELS_DIR
