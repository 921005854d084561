"""What may know what inside the server."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server"
PRIVATES = SERVER / "webrtc" / "aiortc_internals.py"
PURE = {
    "server.live.clock": {"server.sound.intake"},
    "server.live.pacing": {"server.live.clips", "server.live.clock", "server.sound.intake"},
    "server.sound.arrivals": set(),
    "server.sound.intake": {"server.sound.arrivals", "server.sound.stretch"},
    "server.sound.receive": set(),
    "server.sound.stretch": set(),
    "server.live.quality": set(),
    "server.sound.sound_format": {"server.sound.intake"},
    "server.live.speech": {
        "server.live.clips",
        "server.live.events",
        "server.sound.intake",
        "server.sound.sound_format",
    },
}
# What aiortc documents, its errors, its own streams, and how it reads a session description.
DOCUMENTED = {"aiortc", "aiortc.mediastreams", "aiortc.exceptions", "aiortc.sdp"}
MANGLED = re.compile(r"_[A-Z]\w*__\w+")


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_what_is_pure_knows_no_stream_and_no_library() -> None:
    for name, allowed in PURE.items():
        known = imported(ROOT / f"{name.replace('.', '/')}.py")
        assert {m for m in known if m.startswith("server")} <= allowed, name
        assert not {m for m in known if m.startswith(("aiortc", "aioice", "asyncio", "time"))}, name


def test_pacing_loads_neither_the_stream_nor_the_network() -> None:
    program = (
        "import sys, server.live.pacing\n"
        "print([m for m in sys.modules if m.startswith(('aiortc', 'aioice', 'server.live.engine_stream'))])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_privates_of_aiortc_are_known_in_one_file() -> None:
    others = [path for path in SERVER.rglob("*.py") if path != PRIVATES]
    assert len(others) > 60
    for path in others:
        library = {m for m in imported(path) if m.split(".")[0] in ("aiortc", "aioice")}
        assert library <= DOCUMENTED, path.name
        assert not MANGLED.findall(path.read_text()), path.name
