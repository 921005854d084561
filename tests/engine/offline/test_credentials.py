"""Content credentials (C2PA), as the standard's own reader finds them; and what `detect` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from engine.avatar import AvatarEngine
from engine.errors import ConfigError
from engine.face.image_file import decode_image
from engine.offline.casting import Casting
from engine.offline.credentials import Credentials, read_credentials, sidecar_of
from engine.offline.examine import examine
from engine.offline.mark import image_mark
from engine.offline.output import claim_output
from engine.offline.provenance import Provenance
from engine.offline.signing_keys import DEVELOPMENT, development_key
from engine.offline.video import generate
from server.cli import app
from server.settings import BUNDLED_PORTRAIT
from tests.engine.audio.test_sound_file import write_wav

c2pa = pytest.importorskip("c2pa")
KEY = "a key of sixteen letters"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of each kind, and frames, marked and signed."""
    folder = tmp_path_factory.mktemp("made")
    wav = write_wav(folder / "a.wav", np.random.default_rng(0).standard_normal(30 * 640) * 0.05)
    engine = AvatarEngine.load()
    casting = Casting(portraits=[decode_image(BUNDLED_PORTRAIT.read_bytes())])
    said: list[str] = []
    for name in ("one.mp4", "two.webm"):
        with claim_output(folder / name, Provenance(KEY, "here")) as held:
            generate(engine, casting, wav, held, say=said.append)
    assert [s for s in said if "credentials" in s] == [
        "two.webm cannot hold its content credentials: two.c2pa has them."
    ]
    short = write_wav(folder / "b.wav", np.zeros(3 * 640))
    generate(engine, casting, short, folder / "frames")
    return folder


def reader_says(path: Path) -> dict:
    """The file as the standard's own reader reads it."""
    with c2pa.Reader(str(path)) as reader:
        return json.loads(reader.json())


@pytest.mark.parametrize("name", ["one.mp4", "frames/000002.png"])
def test_a_file_that_is_generated_says_that_a_model_made_it(made: Path, name: str) -> None:
    said = reader_says(made / name)
    assert said["validation_state"] == "Valid"
    manifest = said["manifests"][said["active_manifest"]]
    actions = next(a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert manifest["signature_info"]["issuer"] == DEVELOPMENT


def test_what_cannot_hold_credentials_has_them_beside_it(made: Path) -> None:
    said = read_credentials(made / "two.webm")
    assert said is not None
    assert (said.state, said.synthetic, said.beside) == ("Valid", True, True)


def test_the_mark_in_a_file_is_found_with_its_key_alone(made: Path) -> None:
    found = examine(made / "one.mp4", KEY)
    (seen,) = found.marks
    assert (seen.public, seen.windows, found.windows) == (False, 1, 1)
    assert found.comment
    assert not examine(made / "one.mp4").marks
    assert examine(made / "frames" / "000001.png").marks[0].public
    assert examine(made / "two.webm", KEY).marks[0].payload.deployment == seen.payload.deployment


def test_a_file_that_was_changed_is_no_longer_valid(made: Path, tmp_path: Path) -> None:
    content = bytearray((made / "one.mp4").read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "changed.mp4"
    changed.write_bytes(content)
    said = read_credentials(changed)
    assert said is not None
    assert said.state == "Invalid"


def test_detect_says_what_it_found_and_nothing_of_a_photo(made: Path, tmp_path: Path) -> None:
    run = CliRunner()
    found = run.invoke(app, ["detect", str(made / "one.mp4"), "--mark-key", KEY])
    assert found.exit_code == 0, found.output
    for words in (
        "deployment ",
        "in 1 of 1 windows",
        "valid, made by a trained model",
        "synthetic",
    ):
        assert words in found.output
    photo = run.invoke(app, ["detect", str(BUNDLED_PORTRAIT), "--json"])
    assert photo.exit_code == 1
    assert json.loads(photo.output)["marks"] == []
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    short = run.invoke(
        app, ["generate", "-p", "p", "-a", "a", "-o", "o.mp4", "--mark-key", "short"]
    )
    assert "at least 16" in str(short.exception)
    refused = run.invoke(app, ["detect", str(broken)])
    assert "neither a picture nor a video" in str(refused.exception)


def test_a_sidecar_of_another_file_is_not_written_over(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"two\.c2pa"), claim_output(made / "two.mkv"):
        pass


def test_an_own_certificate_signs_and_one_of_others_is_refused(tmp_path: Path) -> None:
    key = development_key()
    certificate, secret, other = (tmp_path / name for name in ("chain.pem", "key.pem", "other.pem"))
    certificate.write_bytes(key.chain)
    secret.write_bytes(key.key)
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(picture, pnginfo=image_mark())
    credentials = Credentials.chosen(certificate, secret)
    assert credentials is not None
    assert credentials.sign(picture) is None
    assert reader_says(picture)["validation_state"] == "Valid"
    other.write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="PEM"):
        Credentials.chosen(certificate, other)
    with pytest.raises(ConfigError, match="give both"):
        Credentials.chosen(certificate)
    with pytest.raises(ConfigError, match="cannot be read"):
        Credentials.chosen(certificate, tmp_path / "missing.pem")
    assert not sidecar_of(picture).exists()


def test_the_key_for_development_is_kept_and_is_the_users_alone() -> None:
    assert development_key() == development_key()
    import typer

    path = Path(typer.get_app_dir("portraittalk")) / "c2pa-development.pem"
    assert path.stat().st_mode & 0o077 == 0
