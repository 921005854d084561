"""The avatar as a library: one portrait and PCM in, frames out. Knows no network."""

import os
import sys

# Three run times phone home by default; they are silenced before anything imports them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DO_NOT_TRACK", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
