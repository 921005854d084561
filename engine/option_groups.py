"""Option groups: dataclasses whose fields are options of a typer command."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any


def given(group: Any) -> dict[str, Any]:
    """The options of a group that were given, by name; a list becomes a tuple."""
    values = {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None and value != []
    }


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a typer command take option groups.

    A parameter whose type is a dataclass stands for the fields of that dataclass, each an option;
    typer sees the flat list, the command gets the groups.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        n: kind for n, kind in hints.items() if dataclasses.is_dataclass(kind)
    }
    flat: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            flat += _parameters(groups[parameter.name])
        else:
            flat.append(parameter.replace(annotation=hints[parameter.name]))
    signature = inspect.Signature(
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in flat], return_annotation=None
    )

    @functools.wraps(command)
    def run(**options: Any) -> None:
        grouped = {
            name: group(**{f.name: options.pop(f.name) for f in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        command(**options, **grouped)

    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in flat}
    return run


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=(
                inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            ),
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]
