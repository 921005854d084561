"""The page's files fit together: no foreign address, no missing element, words for every code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "client_example" / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))
HTML = (PAGE / "index.html").read_text()

PORTRAIT_CODES = (
    "bad_image",
    "too_large",
    "no_face",
    "several_faces",
    "face_too_small",
    "turned_away",
    "server_full",
)


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text)


def test_every_element_a_script_asks_for_exists() -> None:
    there = set(re.findall(r'\bid="([^"]+)"', HTML))
    asked = {
        name
        for path in SCRIPTS
        for name in re.findall(r'(?:\$|getElementById)\("([^"]+)"\)', path.read_text())
    }
    assert asked
    assert not asked - there


def test_every_import_names_a_file_and_something_it_exports() -> None:
    for path in SCRIPTS:
        for names, target in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', path.read_text()):
            exported = set(
                re.findall(
                    r"export (?:async )?(?:const|function|class) (\w+)",
                    (PAGE / target).read_text(),
                )
            )
            wanted = {name.strip() for name in names.split(",") if name.strip()}
            assert not wanted - exported, f"{path.name} wants {wanted - exported} of {target}"


def test_links_of_the_page_exist() -> None:
    linked = re.findall(r'(?:href|src)="page/([^"]+)"', HTML)
    assert len(linked) >= 3
    assert not [name for name in linked if not (PAGE / name).is_file()]


def test_every_refusal_of_a_portrait_has_words() -> None:
    words = (PAGE / "words.js").read_text()
    block = words[words.index("const PORTRAIT") : words.index("const MICROPHONE")]
    assert set(re.findall(r"^  (\w+):", block, re.MULTILINE)) == set(PORTRAIT_CODES)


def test_the_page_works_under_a_strict_content_policy() -> None:
    assert "style=" not in HTML
    assert "onclick=" not in HTML
    assert not re.findall(r"<script(?![^>]*\bsrc=)", HTML)


def test_every_control_has_a_name_for_screen_readers() -> None:
    for attributes, content in re.findall(r"<button([^>]*)>(.*?)</button>", HTML, re.DOTALL):
        text = re.sub(r"<svg.*?</svg>|<[^>]+>", "", content, flags=re.DOTALL).strip()
        filled_later = 'id="notice-action"' in attributes
        assert filled_later or "aria-label=" in attributes or len(text) > 1, attributes
    for attributes in re.findall(r"<input([^>]*)>", HTML):
        assert "aria-label=" in attributes
