"""What is installed is ours alone, small, and complete."""

import re
import tomllib
from importlib.metadata import distribution, packages_distributions, requires
from pathlib import Path

import pytest

from server.settings import BUNDLED_PORTRAIT

ROOT = Path(__file__).parents[1]
NAMES = ("server", "engine", "exports")
CUDA_BUILDS = ("torchvision", "torchaudio", "timm", "lpips", "facexlib", "clean-fid", "pyiqa")


def test_import_names_belong_to_us_alone() -> None:
    distribution("portraittalk")  # the tests run on an installed project
    owners = packages_distributions()
    clash = {n: owners[n] for n in NAMES if set(owners.get(n, ())) - {"portraittalk"}}
    assert not clash, f"another distribution ships the same import name: {clash}"


def test_the_core_needs_no_torch_and_few_packages() -> None:
    core = [r for r in requires("portraittalk") or [] if "extra ==" not in r]
    assert not [r for r in core if r.startswith(("torch", "mediapipe", "opencv"))]
    assert len(core) <= 13, core  # websockets is the newest: each assistant's door is a WebSocket


def test_no_extra_pulls_a_cuda_build() -> None:
    assert not [r for r in requires("portraittalk") or [] if r.startswith(CUDA_BUILDS)]
    torch = [r for r in requires("portraittalk") or [] if re.match(r"torch\b(?!metrics)", r)]
    assert torch
    assert all("<2.14" in r for r in torch)


def test_the_onnxruntime_of_a_gpu_is_in_no_other_install() -> None:
    """Beside onnxruntime it would be the same folder twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installs = {"core": project["dependencies"], **project["optional-dependencies"]}
    assert len(installs.pop("gpu")) == 1
    for name, needs in installs.items():
        assert not [n for n in needs if "onnxruntime-gpu" in n or "[gpu" in n], name


@pytest.mark.parametrize(
    "name",
    ["speech.onnx", "motion.onnx", "enroll.onnx", "warp.onnx", "denoise.onnx"]
    + ["carry.onnx", "move.onnx", "composite.onnx"]
    + ["detector.onnx", "landmarks.onnx", "lips.onnx", "basis.npz"],
)
def test_embedded_weights_are_there_and_small(name: str) -> None:
    path = ROOT / "engine" / "weights" / "tiny" / name
    assert 0 < path.stat().st_size < 40e6


def test_the_demo_portrait_is_there() -> None:
    assert BUNDLED_PORTRAIT.stat().st_size > 10_000
