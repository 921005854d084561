"""Settings: defaults < environment < flags, refused early with the value."""

from __future__ import annotations

import dataclasses

import pytest

from engine.errors import ConfigError
from server.settings import ServerSettings


def test_flags_win_over_variables_and_those_over_defaults() -> None:
    environ = {"PORTRAITTALK__PORT": "9000", "PORTRAITTALK__MAX_SESSIONS": "3", "HOME": "/x"}
    settings = ServerSettings.merge(environ, {"port": 1234, "host": None})
    assert (settings.port, settings.max_sessions, settings.host) == (1234, 3, "127.0.0.1")


def test_variables_are_read_as_their_kind() -> None:
    environ = {
        "PORTRAITTALK__WATCHDOG_S": "2.5",
        "PORTRAITTALK__FRAME_CODE": "yes",
        "PORTRAITTALK__ALLOW_LOOPBACK": "0",
        "PORTRAITTALK__ICE_SERVERS": "stun:a.example:3478, turn:b.example",
        "PORTRAITTALK__TURN_SECRET": "of coturn",
        "PORTRAITTALK__CODEC": "h264",
    }
    settings = ServerSettings.merge(environ, {})
    assert settings.watchdog_s == 2.5
    assert settings.frame_code is True
    assert settings.allow_loopback is False
    assert settings.ice_servers == ("stun:a.example:3478", "turn:b.example")
    assert settings.codec == "h264"


def test_nobody_outside_is_asked_by_default() -> None:
    assert ServerSettings().ice_servers == ()


@pytest.mark.parametrize(
    ("environ", "flags", "said"),
    [
        ({"PORTRAITTALK__PROT": "1"}, {}, "did you mean 'port'"),
        ({"PORTRAITTALK__PORT": "many"}, {}, "PORTRAITTALK__PORT='many' is not a number"),
        ({"PORTRAITTALK__FRAME_CODE": "perhaps"}, {}, "neither yes nor no"),
        ({}, {"port": 70_000}, "port=70000 is out of range"),
        ({}, {"host": ""}, "host='' is no address"),
        ({"PORTRAITTALK__HOST": " "}, {}, "host=' ' is no address"),
        ({}, {"max_sessions": 0}, "max_sessions=0"),
        ({}, {"watchdog_s": 0.0}, "watchdog_s=0.0"),
        ({}, {"codec": "av1"}, "codec='av1'"),
        ({}, {"ice_servers": ("http://a.example",)}, "ice_servers"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value(
    environ: dict[str, str], flags: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        ServerSettings.merge(environ, flags)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerSettings().port = 1  # type: ignore[misc]
