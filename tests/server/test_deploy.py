"""The files for containers say what is true of this server, as far as that can be seen without an engine."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.app import create_app
from server.settings import PREFIX, ServerSettings
from server.web.routes import Operation
from tests.server.fake_engine import FakeEngine
from tests.server.live import PORTRAIT

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "server" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
NAMES = {field.name for field in dataclasses.fields(ServerSettings)}
SECRETS = {"auth_secret": ("x" * 32,), "turn_secret": "y" * 32}


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def public_paths() -> set[str]:
    app = create_app(FakeEngine(side=64), ServerSettings(), PORTRAIT, "Test")
    operations = [route for route in app.routes if isinstance(route, Operation)]
    return {route.path for route in operations if route.access is None}


def instructions(word: str) -> list[str]:
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return [line.removeprefix(f"{word} ") for line in text.splitlines() if line.startswith(word)]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes.yaml"])
def test_every_setting_exists(name: str) -> None:
    found = re.findall(rf"{PREFIX}([A-Z_]+)", (DEPLOY / name).read_text())
    assert found
    assert {each.lower() for each in found} <= NAMES


def test_the_image_installs_as_run_sh_does() -> None:
    ours = {
        shlex.join(w for w in shlex.split(line) if w != "--no-cache-dir")
        for run in instructions("RUN")
        for line in run.split("&&")
    }
    for line in (ROOT / "run.sh").read_text().splitlines():
        if "pip --quiet" in line:
            assert shlex.join(shlex.split(line)) in ours, line
    [entry] = instructions("ENTRYPOINT")
    assert re.findall(r'"([^"]+)"', entry) == [".venv/bin/portraittalk", "serve"]
    assert instructions("USER") == ["avatar"]
    [base] = instructions("FROM")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, re.findall(r"(\d+)\.(\d+)-slim", base)[0])) >= (3, int(wanted[-2:]))


def test_the_image_does_not_start_without_a_secret() -> None:
    [given] = instructions("ENV")
    environ = dict(pair.split("=") for pair in shlex.split(given))
    with pytest.raises(Exception, match="--auth-secret"):
        ServerSettings.merge(environ, {})
    assert ServerSettings.merge(environ, SECRETS).log_format == "json"


def test_health_is_asked_where_it_is_told_to_everybody() -> None:
    asked = set(re.findall(r"8080(/\w+)", " ".join(instructions("HEALTHCHECK"))))
    [deployment] = [d for d in documents("kubernetes.yaml") if d["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked.add(container[probe]["httpGet"]["path"])
    assert asked == {"/healthz", "/readyz"}
    assert asked <= public_paths()


def test_nothing_runs_with_more_rights_than_it_needs() -> None:
    [deployment] = [d for d in documents("kubernetes.yaml") if d["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] > ServerSettings().drain_s
    [compose] = documents("compose.yaml")
    assert compose["services"]["avatar"]["cap_drop"] == ["ALL"]
    turn = " ".join(compose["services"]["turn"]["command"])
    assert "--use-auth-secret" in turn
    environ = {
        key: value.replace("${PUBLIC_HOST}", "a.example") if "ICE" in key else "z" * 32
        for key, value in compose["services"]["avatar"]["environment"].items()
    }
    assert ServerSettings.merge(environ, {}).ice_servers == ("turn:a.example:3478",)
