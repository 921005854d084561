"""The limits this house keeps, read from the syntax trees of what is shipped."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "server", "exports", "client_example")
MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 60
MOST_PARAMETERS = 8
MOST_BROAD_EXCEPTS = 2
ARRAYS = {"NDArray", "ndarray", "Tensor"}
# What maps a name to an array, or makes one, has no shape to state.
OPAQUE = {"Callable", "Mapping", "MutableMapping", "dict", "type"}

# `(N,)`, `(478, 2)`, `(B, 2 C, h / 8, w)`, `(..., 3)` or `()`; not a call and not a remark.
DIMENSION = r"(?:\.\.\.|\w+(?: ?(?://|[-+*/]) ?\w+)?|\d+ \w+)"
TUPLE = re.compile(rf"(?<![\w)])\((?:{DIMENSION},|{DIMENSION}(?:, ?{DIMENSION})+)?\)")
MEASURE = re.compile(r"\.\.\.|(?<!\w)(?:\d+|[A-Za-z]\d?)(?!\w)")
PAIRS = {"(x, y)", "(K, V)"}  # of values, not of lengths

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A file of the product."""

    name: str  # relative to the root
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def at(self, node: ast.stmt | ast.expr | ast.ExceptHandler, what: str = "") -> str:
        return f"{self.name}:{node.lineno} {what}".rstrip()


@cache
def sources() -> list[Source]:
    paths = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    return [
        Source(p.relative_to(ROOT).as_posix(), p.read_text(), ast.parse(p.read_text()))
        for p in paths
    ]


def functions(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def none_of(offenders: list[str], what: str) -> None:
    assert not offenders, f"{len(offenders)} {what}:\n" + "\n".join(offenders)


# Length


def test_files_are_short() -> None:
    texts = {source.name: source.text for source in sources()}
    for folder in FOLDERS:
        pages = [p for end in ("js", "css", "html") for p in (ROOT / folder).rglob(f"*.{end}")]
        texts |= {p.relative_to(ROOT).as_posix(): p.read_text() for p in pages}
    lines = {name: len(text.splitlines()) for name, text in texts.items()}
    long = [f"{name} {n}" for name, n in lines.items() if n > MOST_LINES_OF_A_FILE]
    none_of(long, f"files of more than {MOST_LINES_OF_A_FILE} lines")


def test_functions_are_short() -> None:
    long = [
        source.at(f, f"{f.name} {n}")
        for source in sources()
        for f in functions(source.tree)
        if f.end_lineno and (n := f.end_lineno - f.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ]
    none_of(long, f"functions of more than {MOST_LINES_OF_A_FUNCTION} lines")


# Parameters


def parameters(function: Function) -> int:
    """How many a caller may give."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args)]
    own = names[:1] in (["self"], ["cls"])
    rest = sum(star is not None for star in (given.vararg, given.kwarg))
    return len(names) - own + len(given.kwonlyargs) + rest


def commands() -> set[tuple[str, str]]:
    """Module and name of each function that typer makes a command of."""
    found = set()
    for source in sources():
        imported = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(source.tree):
            if isinstance(node, Function) and any(registers(d) for d in node.decorator_list):
                found.add((source.module, node.name))
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if ast.unparse(node.func) == "typer.run" or registers(node.func):
                handed = node.args[0]
                if isinstance(handed, ast.Attribute):
                    owner = ast.unparse(handed.value)
                    found.add((".".join(imported.get(owner, (owner,))), handed.attr))
                elif isinstance(handed, ast.Name):
                    found.add(imported.get(handed.id, (source.module, handed.id)))
    return found


def registers(call: ast.expr) -> bool:
    """Whether this is `<app>.command(...)` or `<app>.callback(...)`."""
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return False
    return call.func.attr in ("command", "callback")


def test_functions_take_few_parameters() -> None:
    asked = commands()
    many = [
        source.at(f, f"{f.name} {n}")
        for source in sources()
        for f in functions(source.tree)
        if (n := parameters(f)) > MOST_PARAMETERS and (source.module, f.name) not in asked
    ]
    none_of(many, f"functions of more than {MOST_PARAMETERS} parameters")


def test_what_typer_calls_is_known_as_a_command() -> None:
    assert {("server.cli", "serve"), ("client_example.headless", "main")} <= commands()


# Habits


def test_broad_excepts_are_rare() -> None:
    broad = [
        source.at(node)
        for source in sources()
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.ExceptHandler) and catches_all(node.type))
        or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("suppress", "contextlib.suppress")
            and any(catches_all(a) for a in node.args)
        )
    ]
    assert len(broad) <= MOST_BROAD_EXCEPTS, "\n".join(broad)


def catches_all(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(catches_all(k) for k in kind.elts)
    return kind is None or ast.unparse(kind) in ("Exception", "BaseException")


def splats(tree: ast.AST) -> Iterator[ast.expr]:
    """Literals that are unpacked where they stand: what is in them could stand there itself."""
    for node in ast.walk(tree):
        inside: list[ast.expr] = []
        if isinstance(node, ast.Call):
            inside = node.args
            yield from (
                k.value for k in node.keywords if k.arg is None and isinstance(k.value, ast.Dict)
            )
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            inside = node.elts
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (v for k, v in pairs if k is None and isinstance(v, ast.Dict))
        for star in inside:
            if isinstance(star, ast.Starred) and isinstance(star.value, ast.Tuple | ast.List):
                yield star


def test_nothing_is_unpacked_to_please_the_formatter() -> None:
    found = [source.at(node) for source in sources() for node in splats(source.tree)]
    none_of(found, "literals unpacked where they stand")


@pytest.mark.parametrize("text", ["f(*(a, b))", "[*[a]]", "f(**{'a': 1})", "{**{'a': 1}, 'b': 2}"])
def test_an_unpacked_literal_is_seen(text: str) -> None:
    assert len(list(splats(ast.parse(text)))) == 1


@pytest.mark.parametrize("text", ["f(*a, **b)", "[*(x for x in y), *a]", "{**a, 'b': {'c': 1}}"])
def test_unpacking_what_has_a_name_is_fine(text: str) -> None:
    assert not list(splats(ast.parse(text)))


def test_no_file_is_a_drawer_of_odds_and_ends() -> None:
    none_of([s.name for s in sources() if Path(s.name).stem in ("utils", "util")], "such files")


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX)\b")
    left = [
        f"{source.name}:{number} {line.strip()}"
        for source in sources()
        for number, line in enumerate(source.text.splitlines(), 1)
        if later.search(line)
    ]
    none_of(left, "notes of things left to do")


# Shapes


def states_a_shape(text: str) -> bool:
    return any(
        shape == "()" or shape.endswith(",)") or MEASURE.search(shape)
        for shape in TUPLE.findall(text)
        if shape not in PAIRS
    )


@pytest.mark.parametrize(
    "text",
    ["a sound (N,)", "points (478, 2)", "maps (B, C, h, w)", "(H, W, 3) uint8", "(..., 3)"]
    + [
        "`(rows, 68, 2)`",
        "(B, 2 C, H / 8, W // 8)",
        "a loss ()",
        "(T + 1, 52)",
        "weights (steps,)",
    ],
)
def test_a_shape_is_read(text: str) -> None:
    assert states_a_shape(text)


@pytest.mark.parametrize(
    "text",
    ["a sound", "step(H, W)", "(this one, that one)", "calls `start()`", "(52)", "[N, 2]"]
    + ["a point (x, y)", "(somebody 45, 1989)"],
)
def test_a_remark_is_no_shape(text: str) -> None:
    assert not states_a_shape(text)


@cache
def array_names() -> frozenset[str]:
    """`NDArray`, `Tensor` and the names this project gives to kinds of them."""
    known = set(ARRAYS)
    while True:
        more = {
            node.targets[0].id
            for source in sources()
            for node in source.tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            if isinstance(node.value, ast.Subscript | ast.Name | ast.BinOp | ast.Attribute)
            if is_array(node.value, known)
        }
        if more <= known:
            return frozenset(known)
        known |= more


def is_array(annotation: ast.expr | None, names: set[str] | frozenset[str]) -> bool:
    """Whether an annotation holds one of the names, alone or in a list, tuple or union."""
    match annotation:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in names
        case ast.Constant(value=str(text)):
            return any(word in names for word in re.findall(r"\w+", text))
        case ast.Subscript(value=ast.Name(id=name)) if name in OPAQUE:
            return False
        case ast.Subscript(value=value, slice=inner):
            return is_array(value, names) or is_array(inner, names)
        case ast.BinOp(left=left, right=right):
            return is_array(left, names) or is_array(right, names)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return any(is_array(part, names) for part in parts)
    return False


def handles_arrays(function: Function) -> bool:
    given = function.args
    every = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
    annotations = [a.annotation for a in every if a is not None]
    return any(is_array(a, array_names()) for a in (*annotations, function.returns))


def test_the_names_of_arrays_are_known() -> None:
    assert {"NDArray", "Tensor", "F32", "Pcm", "Pcm48", "RgbImage", "Points"} <= array_names()
    assert not {"Mapping", "Callable", "Any", "VideoFrame", "np"} & array_names()


@pytest.mark.parametrize(
    ("signature", "handles"),
    [
        ("(x: Tensor) -> None", True),
        ("() -> list[F32 | None]", True),
        ("(*parts: 'NDArray[Any]') -> None", True),
        ("(load: Callable[[Tensor], Tensor], kept: dict[str, Tensor]) -> int", False),
        ("(frames: list[VideoFrame]) -> str", False),
    ],
)
def test_a_signature_with_arrays_is_seen(signature: str, handles: bool) -> None:
    function = ast.parse(f"def f{signature}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert handles_arrays(function) == handles


def public(body: list[ast.stmt], inherited: str = "") -> Iterator[tuple[Function, str]]:
    """Public functions and methods, each with its own docstring and its class's."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, ast.get_docstring(node) or "")
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node, f"{ast.get_docstring(node) or ''}\n{inherited}"


def test_functions_that_handle_arrays_state_their_shapes() -> None:
    silent = [
        source.at(function, function.name)
        for source in sources()
        if not source.name.startswith("client_example")
        for function, said in public(source.tree.body)
        if handles_arrays(function) and not states_a_shape(said)
    ]
    none_of(silent, "public functions that handle arrays and state no shape")
