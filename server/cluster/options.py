"""How many replicas, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from engine.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Options of `portraittalk cluster` alone."""

    min_replicas: Annotated[int, typer.Option(min=1, help="The fewest servers.")] = 1
    max_replicas: Annotated[
        int, typer.Option(help="The most, as places fill; as many as the fewest if not given.")
    ] = 0
    per_machine: Annotated[
        int, typer.Option(min=1, help="Servers on one machine: each measures all of it as its own.")
    ] = 1
    replica_cpus: Annotated[
        float, typer.Option(help="Processors of Ray's count that one server takes.")
    ] = 1.0
    replica_gpus: Annotated[float, typer.Option(help="The same of GPUs.")] = 0.0
    scale_up_s: Annotated[
        float, typer.Option("--scale-up-after", help="Seconds that places were short before.")
    ] = 30.0
    scale_down_s: Annotated[
        float, typer.Option("--scale-down-after", help="Seconds that places were idle before.")
    ] = 600.0
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray to join: auto, or host:port; its own on this machine if not given."),
    ] = None
    alone: Annotated[
        bool, typer.Option("--alone", help="Ray of its own that listens on this machine alone.")
    ] = False


def check_room(machines: int, options: ClusterOptions) -> None:
    """Raise ConfigError where Ray's machines have no room for the fewest replicas: it would wait for ever."""
    if machines * options.per_machine < options.min_replicas:
        raise ConfigError(
            f"--min-replicas {options.min_replicas}, but Ray has {machines} machine(s) for "
            f"{options.per_machine} each: let others join first (ray start --address), begin with fewer, "
            "which grow as machines join and places fill, or say --per-machine"
        )
