"""The README's examples, as a reader would copy them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"
SERVER = "http://localhost:8080"


def example(mentions: str, url: str) -> dict[str, Any]:
    """Run the one Python example that `mentions` something, with the server at `url`; its names."""
    section = README.read_text().split("## Give your assistant a face")[1].split("\n## ")[0]
    [code] = [c for c in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if mentions in c]
    assert SERVER in code
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code.replace(SERVER, url), "README.md", "exec"), names)
    return names
