"""The server around the fake engine: `python -m tests.server.fake_server --port N [--frame-code]`."""

from __future__ import annotations

import argparse
import os

from server.logs import configure
from server.run import run_server
from server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int)
    parser.add_argument("--max-sessions", type=int, dest="max_sessions")
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--frame-code", action="store_true", default=None, dest="frame_code")
    parser.add_argument("--allow-origin", action="append", dest="allow_origin")
    parser.add_argument("--step-ms", type=float, default=20.0, help="time spent on each frame")
    flags = vars(parser.parse_args())
    engine = FakeEngine(step_seconds=flags.pop("step_ms") / 1000)
    settings = ServerSettings.merge(os.environ, flags)
    configure(settings.log_format)
    run_server(engine, settings)


if __name__ == "__main__":
    main()
