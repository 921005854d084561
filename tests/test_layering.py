"""Imports go one way, and heavy or optional packages stay in the folders that own them."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "engine": {"engine"},
    "exports": {"exports", "engine"},
    "server": {"server", "engine"},
    "client_example": set(),
}
OURS = {"engine", "exports", "server", "client_example", "benchmarks", "tests"}
TRAINING_FOLDERS = (
    "engine/nets",
    "engine/loaders",
    "engine/training",
    "engine/evaluation",
    "exports",
)
TRAINING_PACKAGES = {"torch", "transformers", "cv2", "scipy", "mediapipe", "nncf", "tqdm", "onnx"}
LIGHT = {"engine.loaders.registry"}  # a table: no torch, see tests/engine/loaders/test_registry.py
OWNERS = {
    "onnxruntime": {"engine/backends/onnxruntime.py"},
    "openvino": {"engine/backends/openvino.py"},
}


# What a command opens inside its own function, and only there.
DOORS = {
    "server/cli.py": {"engine.training.commands", "engine.training.portraittalk.run_stage"},
    "engine/profiles/choose.py": {"engine.profiles.sd15"},
}


def sources() -> list[Path]:
    return [p for folder in ALLOWED for p in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    return {name.split(".")[0] for name in names}


def at_the_top(path: Path) -> set[str]:
    """Modules that are imported as soon as `path` is."""
    tree = ast.parse(path.read_text())
    return {n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.module}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_go_one_way() -> None:
    wrong = {
        relative(p): bad
        for p in sources()
        if (bad := (imported(p) & OURS) - ALLOWED[p.relative_to(ROOT).parts[0]])
    }
    assert not wrong


def test_training_packages_stay_in_training_folders() -> None:
    wrong = {
        relative(p): bad
        for p in sources()
        if not relative(p).startswith(TRAINING_FOLDERS) and (bad := imported(p) & TRAINING_PACKAGES)
    }
    assert not wrong


def test_training_is_imported_by_nothing_that_runs_live() -> None:
    live = [p for p in sources() if not relative(p).startswith(TRAINING_FOLDERS)]
    for path in live:
        names = {
            n.module
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.ImportFrom) and n.module
        }
        names -= LIGHT | (DOORS.get(relative(path), set()) - at_the_top(path))
        bad = {n for n in names if n.replace(".", "/").startswith(TRAINING_FOLDERS)}
        assert not bad, f"{relative(path)} imports {bad}"


@pytest.mark.parametrize("package", sorted(OWNERS))
def test_run_times_are_imported_in_one_file(package: str) -> None:
    live = [p for p in sources() if not relative(p).startswith(TRAINING_FOLDERS)]
    users = {relative(p) for p in live if package in imported(p)}
    assert users <= OWNERS[package]


def test_the_engine_runs_without_calling_home(tmp_path: Path) -> None:
    code = (
        "import engine.avatar as a, engine.backends as b, pathlib, engine.render.tiny as p, sys\n"
        "g = b.load_backend('openvino', threads=1).load(p.MOVE, a.EngineConfig().weights / 'move.onnx')\n"
        "assert 'torch' not in sys.modules and 'cv2' not in sys.modules\n"
    )
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")}
    subprocess.run(
        [sys.executable, "-c", code],
        env={**keep, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
    assert not list(tmp_path.iterdir())
