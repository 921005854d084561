"""The command that reads what files say of their origin, and the options that decide what they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.offline.credentials import Statement
    from engine.offline.examine import Findings
    from engine.offline.provenance import Provenance

PANEL = "Provenance"
KEY_VARIABLE = "PORTRAITTALK__MARK_KEY"
NOTHING = 1  # exit status: no sign of being synthetic


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceOptions:
    """How files say that they are synthetic."""

    mark_key: Annotated[
        str,
        typer.Option(
            help="Key of the invisible mark; the public one without it, which everybody can read. "
            f"Better the variable {KEY_VARIABLE}.",
            envvar=KEY_VARIABLE,
            show_envvar=False,
            rich_help_panel=PANEL,
        ),
    ] = ""
    deployment: Annotated[
        str,
        typer.Option(
            help="Name that stands in the invisible mark as a number.",
            envvar="PORTRAITTALK__DEPLOYMENT",
            show_envvar=False,
            rich_help_panel=PANEL,
        ),
    ] = ""
    c2pa_certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of certificates, the signer's first; one made for development without it.",
            envvar="PORTRAITTALK__C2PA_CERTIFICATE",
            show_envvar=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    c2pa_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of its key.",
            envvar="PORTRAITTALK__C2PA_KEY",
            show_envvar=False,
            rich_help_panel=PANEL,
        ),
    ] = None

    def provenance(self) -> Provenance:
        """What these options ask for.

        Raises:
            ConfigError, BackendUnavailable: it cannot be.
        """
        from engine.offline.credentials import Credentials
        from engine.offline.provenance import Provenance

        credentials = Credentials.chosen(self.c2pa_certificate, self.c2pa_key)
        return Provenance(self.mark_key, self.deployment, credentials)


def detect(
    file: Annotated[Path, typer.Argument(help="A video, a picture or a screenshot.")],
    mark_key: Annotated[
        str,
        typer.Option(
            help="Key of the invisible mark, beside the public one.",
            envvar=KEY_VARIABLE,
            show_envvar=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether FILE shows that portraittalk made it: invisible mark, content credentials, comment.

    The exit status is 1 where nothing is found, which is no proof that it was filmed.
    """
    from engine.offline.examine import examine

    findings = examine(file, mark_key)
    if as_json:
        typer.echo(json.dumps({"file": str(file), **dataclasses.asdict(findings)}))
    else:
        typer.echo("\n  ".join([str(file), *_said(findings)]))
    if not findings.anything:
        raise typer.Exit(NOTHING)


def _said(found: Findings) -> list[str]:
    """The findings in lines."""
    lines = [
        f"invisible mark: {seen.payload}, {'public' if seen.public else 'your'} key, "
        f"in {seen.windows} of {found.windows} windows of 2 s"
        for seen in found.marks
    ] or [f"invisible mark: none found in {found.windows} windows of 2 s"]
    lines.append(f"content credentials: {found.unread or _stated(found.credentials)}")
    lines.append(f"comment: {'synthetic video, by portraittalk' if found.comment else 'none'}")
    return lines


def _stated(said: Statement | None) -> str:
    if said is None:
        return "none"
    if said.state == "Invalid":
        return f"damaged, or the file was changed since ({said.signer})"
    trust = "on a trust list" if said.state == "Trusted" else "on no trust list"
    made = "made by a trained model" if said.synthetic else "not said to be synthetic"
    where = ", beside the file" if said.beside else ""
    return f"valid, {made}, {said.generator}, signed by {said.signer} ({trust}){where}"
