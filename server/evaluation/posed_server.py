"""A server whose portrait does what a film's face does: `python -m server.evaluation.posed_server FILM --port N`.

The pose-given protocol of the live path: everything is as `portraittalk serve --frame-code` does it, but
landmarks and placement are the film's, from the first sample of speech on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from server.settings import ServerSettings


def main(
    film: Annotated[Path, typer.Argument(help="Its first frame is the portrait.")],
    port: Annotated[int, typer.Option(help="Port of the page.")] = 8080,
) -> None:
    """Serve until ended."""
    from engine.config import EngineConfig
    from engine.evaluation.given_pose import PoseGivenEngine
    from engine.training.data.talking_video import frames_at
    from server.run import run_server

    engine = PoseGivenEngine.load(EngineConfig())
    engine.follow(frames_at(film))
    run_server(engine, ServerSettings.merge(os.environ, {"port": port, "frame_code": True}))


if __name__ == "__main__":
    typer.run(main)
