"""Imports go one way, and heavy or optional packages stay in the files that own them."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "engine": {"engine"},
    "exports": {"exports", "engine"},
    "server": {"server", "engine", "exports"},
    "client_example": set(),
}
OURS = {"engine", "exports", "server", "client_example", "benchmarks", "tests"}
# Rooms of a package, in the order of the data: each may import those before it and itself.
ROOMS = {
    "engine": (
        *(
            "errors",
            "telemetry",
            "checks",
            "config",
            "outputs",
            "types",
            "watermark",
            "backends",
            "audio",
            "face",
        ),
        *("motion", "diffusion", "nets", "loaders", "render", "enroll", "state", "drawing"),
        *(
            "avatar",
            "profiles",
            "offline",
            "training",
            "evaluation",
            "option_groups",
            "options",
            "provenance_cli",
            "training_options",
            "cli",
        ),
    ),
    "server": (
        *(
            "extras",
            "heap",
            "logs",
            "metrics",
            "priority",
            "consents",
            "portraits",
            "sound",
            "targets",
        ),
        *(
            "settings",
            "live",
            "reception",
            "sending",
            "webrtc",
            "capacity",
            "audit",
            "enrolling",
            "errors",
            "trust",
        ),
        *(
            "resources",
            "service",
            "queues",
            "web",
            "programs",
            "conversation",
            "doors",
            "cluster",
            "livekit_worker",
            "app",
        ),
        *("options", "run", "evaluation", "cli"),
    ),
}
TORCH_FOLDERS = (
    *("engine/nets/", "engine/loaders/", "engine/training/", "engine/evaluation/"),
    "exports/",
)
TORCH_FILES = {
    "engine/backends/cuda_graph.py",
    "engine/backends/torch_graph.py",
    "engine/diffusion/latent_fusion.py",
    "engine/diffusion/samplers.py",
    "engine/profiles/sd15.py",
    "engine/profiles/sd15_public.py",
    "engine/profiles/sd15_settings.py",
    "engine/profiles/sd15_trained.py",
    "engine/profiles/speech.py",
    "engine/render/head_square.py",
    "engine/render/sd15.py",
    "engine/render/sd15_graphs.py",
    "engine/render/sd15_step.py",
    "engine/render/sd15_networks.py",
    "engine/render/sd15_sampling.py",
    "engine/render/sd15_video.py",
    "engine/render/together.py",
}
TORCH_PACKAGES = {"torch", "transformers", "diffusers", "cv2", "scipy", "mediapipe", "tqdm", "onnx"}
LIGHT = {
    "engine.loaders.registry",
    "engine.loaders.checkpoints",
    "engine.loaders.run_card",
    "engine.loaders.safetensors_header",
    "exports.cli",
    "exports.engines",
}  # a table: no torch, see tests/engine/loaders/test_registry.py
OWNERS = {
    "onnxruntime": {"engine/backends/onnxruntime.py", "engine/backends/device_memory.py"},
    "openvino": {"engine/backends/openvino.py"},
    "cuda": {"engine/backends/cuda_memory.py"},
}
# What is opened inside a function, and only there, when it is asked for.
DOORS = {
    "engine/cli.py": {
        "engine.training.commands",
        "engine.training.portraittalk.run_stage",
    },
    "engine/profiles/__init__.py": {"engine.profiles.sd15", "engine.profiles.speech"},
    "server/evaluation/command.py": {
        *(
            f"engine.evaluation.{name}"
            for name in ("about", "blind", "compare", "compare_page", "lossless", "page")
        ),
        *(f"engine.evaluation.{name}" for name in ("run", "sets", "systems", "table")),
        *("engine.evaluation.ablations.command", "engine.evaluation.measures"),
    },
    "server/evaluation/posed_server.py": {
        "engine.evaluation.given_pose",
        "engine.training.data.talking_video",
    },
    "engine/profiles/checkpoints.py": {"engine.loaders.hubert_motion"},
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sources() -> list[Path]:
    return [p for folder in ALLOWED for p in sorted((ROOT / folder).rglob("*.py"))]


def module_of(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(p) for p in sources()}


def without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from without_type_checking(node)


def imports(path: Path, *, types: bool = False) -> set[str]:
    """Modules that `path` imports anywhere; `from a import b` names `a.b` where that is a module."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if types else without_type_checking(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= full & MODULES or {node.module}
            if full - MODULES:
                found.add(node.module)
    return found


def at_the_top(path: Path) -> set[str]:
    """Modules that are imported as soon as `path` is."""
    tree = ast.parse(path.read_text())
    return {n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.module}


def room(module: str) -> tuple[str, str] | None:
    """Package and room of a module of a package that has rooms."""
    parts = module.split(".")
    return (parts[0], parts[1]) if parts[0] in ROOMS and len(parts) > 1 else None


def owns_torch(path: str) -> bool:
    return path.startswith(TORCH_FOLDERS) or path in TORCH_FILES


def test_imports_go_one_way() -> None:
    wrong = {
        relative(p): bad
        for p in sources()
        if (
            bad := ({m.split(".")[0] for m in imports(p, types=True)} & OURS)
            - ALLOWED[relative(p).split("/")[0]]
        )
    }
    assert not wrong


def test_exports_are_opened_by_the_command_line_alone() -> None:
    users = {
        relative(p)
        for p in sources()
        if relative(p).startswith("server/")
        and any(m.split(".")[0] == "exports" for m in imports(p, types=True))
    }
    assert users == {"server/cli.py"}


def test_every_room_is_in_the_order() -> None:
    found = {r for m in MODULES if (r := room(m))}
    assert found == {(package, name) for package, names in ROOMS.items() for name in names}


def test_rooms_import_only_the_rooms_before_them() -> None:
    order = {(p, name): i for p, names in ROOMS.items() for i, name in enumerate(names)}
    wrong = []
    for path in sources():
        here = room(module_of(path))
        if here is None:
            continue
        for module in imports(path):
            there = room(module)
            if there is not None and there[0] == here[0] and order[there] > order[here]:
                wrong.append(f"{relative(path)} imports {module}")
    assert not wrong


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {module_of(p): {m for m in imports(p) if m in MODULES} for p in sources()}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in graph[module] - {module}:
                walk(other, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_loaders_know_no_training() -> None:
    loaders = [p for p in sources() if relative(p).startswith("engine/loaders/")]
    assert loaders
    wrong = {
        relative(p)
        for p in loaders
        if any("training" in m.split(".") for m in imports(p, types=True))
    }
    assert not wrong


def test_training_packages_stay_in_the_files_that_own_them() -> None:
    wrong = {
        relative(p): bad
        for p in sources()
        if not owns_torch(relative(p))
        and (bad := {m.split(".")[0] for m in imports(p)} & TORCH_PACKAGES)
    }
    assert not wrong


def test_what_needs_torch_is_opened_by_live_code_only_when_asked_for() -> None:
    heavy = {module_of(p) for p in sources() if owns_torch(relative(p))} - LIGHT
    wrong = {}
    for path in sources():
        if owns_torch(relative(path)):
            continue
        opened = DOORS.get(relative(path), set()) - at_the_top(path)
        if bad := (imports(path) & heavy) - opened:
            wrong[relative(path)] = bad
    assert not wrong


@pytest.mark.parametrize("package", sorted(OWNERS))
def test_run_times_are_imported_in_their_own_files(package: str) -> None:
    live = [p for p in sources() if not owns_torch(relative(p))]
    users = {relative(p) for p in live if package in {m.split(".")[0] for m in imports(p)}}
    assert users <= OWNERS[package]


def test_importing_the_engine_changes_no_environment() -> None:
    code = (
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import engine, engine.avatar, engine.config, engine.offline.motion_file\n"
        "assert dict(os.environ) == before\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "from engine.backends import load_backend\n"
        "load_backend('openvino', threads=1)\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == os.environ['DO_NOT_TRACK'] == '1'\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_the_engine_runs_without_calling_home(tmp_path: Path) -> None:
    code = (
        "import engine.avatar as a, engine.backends as b, pathlib, engine.render.specs as p, sys\n"
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
