"""Each of the embedded networks is compiled once in a process of tests: it is read-only, and takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino as ov
import pytest

FILE = "file"


def compile_once(patch: pytest.MonkeyPatch) -> None:
    """Let engines that are loaded from the same files share what was compiled; requests stay their own."""
    kept: dict[tuple[str, ...], ov.CompiledModel] = {}
    read, compiled = ov.Core.read_model, ov.Core.compile_model

    def read_and_note(core: ov.Core, path: Any, *more: Any) -> ov.Model:
        model = read(core, path, *more)
        if isinstance(path, Path):
            about = path.stat()
            model.set_rt_info(f"{path} {about.st_mtime_ns} {about.st_size}", FILE)
        return model

    def share(core: ov.Core, model: Any, *more: Any) -> ov.CompiledModel:
        if not isinstance(model, ov.Model) or not model.has_rt_info(FILE):
            return compiled(core, model, *more)
        shapes = [str(port.partial_shape) for port in model.inputs]
        key = (model.get_rt_info(FILE).astype(str), *shapes, repr(more))
        if key not in kept:
            kept[key] = compiled(core, model, *more)
        return kept[key]

    patch.setattr(ov.Core, "read_model", read_and_note)
    patch.setattr(ov.Core, "compile_model", share)
