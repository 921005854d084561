"""Passwords for TURN as coturn makes them."""

from __future__ import annotations

import subprocess

import pytest

from engine.errors import ConfigError
from server.settings import ServerSettings
from server.webrtc.ice import ice_servers


def test_passwords_are_those_that_openssl_computes() -> None:
    settings = ServerSettings(
        ice_servers=("stun:s.example", "turn:t.example:3478", "turns:t.example"),
        turn_secret="north",
    )
    stun, turn, turns = ice_servers(settings, "ann", 1000.0)
    assert stun == {"urls": "stun:s.example"}
    assert turn["username"] == turns["username"] == "87400:ann"
    command = ["openssl", "dgst", "-sha1", "-hmac", "north", "-binary"]
    signed = subprocess.run(command, input=b"87400:ann", capture_output=True, check=True).stdout
    encoded = subprocess.run(["base64"], input=signed, capture_output=True, check=True).stdout
    assert turn["credential"] == encoded.decode().strip()


@pytest.mark.parametrize("url", ["turn:t.example", "turns:t.example:5349"])
def test_a_relay_without_a_secret_is_refused_in_words(url: str) -> None:
    with pytest.raises(ConfigError, match="turn_secret"):
        ServerSettings(ice_servers=(url,))
