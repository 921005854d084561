"""Who enrols somebody says that they agreed: the record, its export, its end, and the audit log."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from engine.errors import ConfigError
from server.settings import ServerSettings
from tests.server.live import Live, serving
from tests.server.pictures import encoded, photo

SECRET = "a secret of more than thirty-two letters"
JPEG = encoded(photo(), "JPEG")
AGREED = {"who": "Zoë 李", "purpose": "to greet visitors", "when": "2026-11-01T12:00:00+01:00"}


def bearer(sub: str, scope: str = "view control portraits") -> dict[str, str]:
    claims = {"sub": sub, "scope": scope, "exp": time.time() + 60}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET)}"}


async def enrol(live: Live, sub: str, consent: str | None) -> httpx.Response:
    headers = {**bearer(sub), "Content-Type": "image/jpeg"}
    if consent is not None:
        headers["Consent"] = consent
    return await live.http.post("/api/portraits", content=JPEG, headers=headers)


def quoted(consent: dict[str, str]) -> str:
    return str(httpx.QueryParams({"c": json.dumps(consent)}))[2:].replace("+", "%20")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def live(log: Path) -> AsyncIterator[Live]:
    settings = ServerSettings(port=0, auth_secret=(SECRET,), audit_log=str(log), portraits_kept=8)
    async with serving(settings=settings) as running:
        yield running


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def is_private(log: Path) -> bool:
    return log.stat().st_mode & 0o077 == 0


def write(log: Path, text: str) -> None:
    log.write_text(text)


@pytest.mark.parametrize(
    ("consent", "status", "code"),
    [
        (None, 403, "consent_required"),
        ("yes", 422, "bad_consent"),
        ("[" * 3000, 422, "bad_consent"),
        ('{"who": " ", "purpose": "x"}', 422, "bad_consent"),
        ('{"who": "Ann", "purpose": "x", "when": "soon"}', 422, "bad_consent"),
        ('{"who": "Ann", "purpose": "x", "age": 7}', 422, "bad_consent"),
        ("%ff", 422, "bad_consent"),
    ],
)
async def test_nobody_is_enrolled_without_a_record_of_consent(
    live: Live, log: Path, consent: str | None, status: int, code: str
) -> None:
    refused = await enrol(live, "ann", consent)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert lines(log) == []


async def test_a_record_is_exported_by_its_owner_and_deleted_with_the_portrait(live: Live) -> None:
    made = (await enrol(live, "ann", quoted(AGREED))).json()
    path = f"/api/portraits/{made['id']}"
    record = (await live.http.get(f"{path}/consent", headers=bearer("ann"))).json()
    assert (record["who"], record["purpose"]) == (AGREED["who"], AGREED["purpose"])
    assert record["when"] == "2026-11-01T11:00:00+00:00"
    assert (record["subject"], record["portrait_id"]) == ("ann", made["id"])
    assert (record["id"], len(record["token"])) == (made["consent_id"], 16)
    every = (await live.http.get("/api/consents", headers=bearer("ann"))).json()
    assert every == {"consents": [record]}
    assert (await live.http.get("/api/consents", headers=bearer("bob"))).json() == {"consents": []}
    others = await live.http.get(f"{path}/consent", headers=bearer("bob"))
    assert others.status_code == 404
    assert (await live.http.delete(path, headers=bearer("bob"))).status_code == 404
    assert (await live.http.delete(path, headers=bearer("ann"))).status_code == 204
    for gone in (f"{path}/image", f"{path}/consent"):
        assert (await live.http.get(gone, headers=bearer("ann"))).status_code == 404
    assert (await live.http.get("/api/consents", headers=bearer("ann"))).json() == {"consents": []}
    bundled = await live.http.delete("/api/portraits/default", headers=bearer("ann"))
    assert bundled.status_code == 403


async def test_sessions_that_show_a_deleted_portrait_end(live: Live) -> None:
    made = (await enrol(live, "ann", quoted(AGREED))).json()
    body = {"portrait_id": made["id"]}
    for _ in range(2):
        await live.http.post("/api/sessions", json=body, headers=bearer("ann"))
    await live.http.post("/api/sessions", json={}, headers=bearer("ann"))
    await live.http.delete(f"/api/portraits/{made['id']}", headers=bearer("ann"))
    assert [s.portrait_id for s in live.service.sessions] == ["default"]


async def test_the_audit_log_has_enrolment_deletion_and_sessions_and_no_names(
    live: Live, log: Path
) -> None:
    ids = [(await enrol(live, "ann", quoted(AGREED))).json()["id"] for _ in range(3)]  # 2 are kept
    session = await live.http.post(
        "/api/sessions", json={"portrait_id": ids[2]}, headers=bearer("ann")
    )
    await live.http.delete(f"/api/portraits/{ids[2]}", headers=bearer("ann"))
    noted = lines(log)
    assert [(line["event"], line.get("portrait")) for line in noted] == [
        ("portrait_enrolled", ids[0]),
        ("portrait_enrolled", ids[1]),
        ("portrait_enrolled", ids[2]),
        ("portrait_displaced", ids[0]),
        ("session_opened", ids[2]),
        ("portrait_deleted", ids[2]),
        ("session_closed", None),
    ]
    assert {line["subject"] for line in noted} == {"ann"}
    assert {line["session"] for line in noted if "session" in line} == {
        session.json()["session_id"]
    }
    assert noted[-1]["reason"] == "portrait_deleted"
    assert len(noted[4]["mark"]) == 8
    assert all(line["time"] and "consent" in line for line in noted if "token" in line)
    assert AGREED["purpose"] not in json.dumps(noted)
    assert is_private(log)


async def test_the_log_is_added_to_and_one_that_is_full_stops_enrolment(log: Path) -> None:
    write(log, '{"event": "before"}\n')
    settings = ServerSettings(port=0, audit_log=str(log))
    async with serving(settings=settings) as live:
        made = await live.http.post(
            "/api/portraits", content=JPEG, headers={"Content-Type": "image/jpeg"}
        )
        assert made.status_code == 201  # without tokens nobody asks for consent
        assert [line["event"] for line in lines(log)] == ["before", "portrait_enrolled"]
    full = ServerSettings(port=0, audit_log="/dev/full")
    async with serving(settings=full) as live:
        made = await live.http.post(
            "/api/portraits", content=JPEG, headers={"Content-Type": "image/jpeg"}
        )
        assert (made.status_code, made.json()["error"]["code"]) == (503, "audit_failed")
        assert (await live.http.post("/api/sessions", json={})).status_code == 201
        assert live.service.portraits.of("") == []


async def test_a_log_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    settings = ServerSettings(port=0, audit_log=str(tmp_path / "missing" / "log"))
    from server.service import AvatarService
    from tests.server.fake_engine import FakeEngine

    with pytest.raises(ConfigError, match="audit_log"):
        AvatarService(FakeEngine(side=64), settings)
