"""Tokens are those that every library makes, and nothing else is taken for one."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.errors import ConfigError
from server.cli import app
from server.trust.tokens import Grant, TokenRefused, sign, verify

SECRET = "s" * 32
NOW = 1_800_000_000.0
CLAIMS = {"sub": "ann", "scope": "view speak", "exp": int(NOW) + 60}


def test_a_library_reads_ours() -> None:
    ends = time.time() + 60
    claims = jwt.decode(sign(SECRET, "ann", ("view", "speak"), ends), SECRET, ["HS256"])
    assert claims == {"sub": "ann", "scope": "view speak", "exp": int(ends)}


def test_we_read_a_librarys() -> None:
    assert verify([SECRET], jwt.encode(CLAIMS, SECRET), NOW) == Grant(
        "ann", frozenset({"view", "speak"})
    )
    listed = jwt.encode({**CLAIMS, "scope": ["control"]}, SECRET)
    assert verify([SECRET], listed, NOW).allows == {"control"}


def test_an_old_secret_is_taken_beside_the_new_one() -> None:
    token = jwt.encode(CLAIMS, SECRET)
    assert verify(["n" * 32, SECRET], token, NOW).subject == "ann"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exp": int(NOW) - 60}, "over"),
        ({"exp": None}, "when it ends"),
        ({"exp": "2030"}, "when it ends"),
        ({"exp": float("nan")}, "over"),
        ({"nbf": int(NOW) + 60}, "not valid yet"),
        ({"sub": ""}, "whose"),
        ({"sub": 3}, "whose"),
        ({"scope": 3}, "words"),
        ({"scope": [3]}, "words"),
    ],
)
def test_what_a_token_must_say(change: dict[str, object], said: str) -> None:
    claims = {**CLAIMS, **change}
    head = ".".join(_part(part) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    with pytest.raises(TokenRefused, match=said):
        verify([SECRET], signed(head), NOW)


def test_no_algorithm_but_ours_is_taken() -> None:
    for head in ({"alg": "none"}, {"alg": "HS512"}, {}, {"alg": ["HS256"]}):
        with pytest.raises(TokenRefused, match="HS256"):
            verify([SECRET], signed(f"{_part(head)}.{_part(CLAIMS)}"), NOW)
    for token in (jwt.encode(CLAIMS, "x" * 32), jwt.encode(CLAIMS, None, "none")):
        with pytest.raises(TokenRefused):
            verify([SECRET], token, NOW)


@given(st.integers(0, 200), st.characters(codec="utf-8"))
def test_a_changed_token_is_none(at: int, letter: str) -> None:
    token = jwt.encode(CLAIMS, SECRET)
    at %= len(token)
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token and not same_bytes(changed, token):
        with pytest.raises(TokenRefused):
            verify([SECRET], changed, NOW)


@given(st.text() | st.text("ey.J-_=AQ"))
def test_noise_is_no_token(text: str) -> None:
    with pytest.raises(TokenRefused):
        verify([SECRET], text, NOW)


def same_bytes(one: str, other: str) -> bool:
    """The last letter of a signature has bits that nobody reads."""
    return one[:-1] == other[:-1]


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(head: str) -> str:
    """Signed as PyJWT would, whatever the head says."""
    key = jwt.get_algorithm_by_name("HS256").prepare_key(SECRET)
    signature = jwt.get_algorithm_by_name("HS256").sign(head.encode(), key)
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_the_command_makes_one_for_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAITTALK__AUTH_SECRET", SECRET)
    asked = ["token", "--scope", "view", "--scope", "speak", "--expires", "60", "--subject", "bob"]
    answer = CliRunner().invoke(app, asked)
    claims = jwt.decode(answer.stdout.strip(), SECRET, ["HS256"])
    assert (claims["sub"], claims["scope"]) == ("bob", "view speak")
    assert 50 < claims["exp"] - time.time() <= 60
    assert verify([SECRET], CliRunner().invoke(app, ["token"]).stdout.strip(), time.time())


@pytest.mark.parametrize(
    ("asked", "secret", "said"),
    [
        ([], "", "there is no secret"),
        (["--scope", "all"], SECRET, "view, speak, control, portraits"),
        (["--auth-secret", "short"], SECRET, "32 characters"),
    ],
)
def test_a_token_that_cannot_be_made_is_said_why(
    asked: list[str], secret: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAITTALK__AUTH_SECRET", secret)
    answer = CliRunner().invoke(app, ["token", *asked])
    assert isinstance(answer.exception, ConfigError)
    assert said in str(answer.exception)


@pytest.mark.parametrize("page", ["README.md", "server/doors/README.md"])
def test_the_token_of_the_documents_is_taken(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    [code] = [c for c in re.findall(r"```python\n(.*?)```", text, re.S) if "jwt.encode" in c]
    names = {"jwt": jwt, "time": time, "user_id": "ann", "SECRET": SECRET}
    exec(compile(code, page, "exec"), names)
    grant = verify([SECRET], str(names["token"]), time.time())
    assert grant == Grant("ann", frozenset({"view", "speak"}))
