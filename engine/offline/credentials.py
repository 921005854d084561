"""Content credentials (C2PA) of files: that a trained model made them, signed; and what a file has of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import BackendUnavailable, ConfigError
from engine.offline.signing_keys import SigningKey, development_key, read_key

if TYPE_CHECKING:
    import c2pa

MISSING = "Files carry no content credentials (C2PA): pip install 'portraittalk[c2pa]'"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
# What holds its credentials itself, as the library names it.
_EMBEDDED = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
_BYTES = "application/octet-stream"  # what has them beside it: its bytes are signed
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},  # nothing is fetched
}


class Credentials:
    """Signs files as made by portraittalk."""

    def __init__(self, key: SigningKey | None = None) -> None:
        self._key = key  # None: the user's own for development, made when it is needed

    @classmethod
    def chosen(cls, certificate: Path | None = None, key: Path | None = None) -> Credentials | None:
        """With a certificate and its key, else the user's own for development; None: no package.

        Raises:
            BackendUnavailable: there is a certificate, and not the package to use it.
            ConfigError: they cannot be used.
        """
        own = None
        if certificate is not None and key is not None:
            own = read_key(certificate, key)
        elif certificate is not None or key is not None:
            raise ConfigError("a C2PA certificate and its key go together: give both")
        try:
            import c2pa  # noqa: F401 - whether it is there
        except ModuleNotFoundError:
            if own is not None:
                raise BackendUnavailable(MISSING) from None
            return None
        return cls(own)

    def sign(self, path: Path, name: Path | None = None) -> Path | None:
        """Sign a file in place, or into a file beside `name`, what it is going to be called.

        Returns:
            the file beside it, for formats that cannot hold it themselves.
        """
        import c2pa

        name = name or path
        embedded = name.suffix.lower() in _EMBEDDED
        context = c2pa.Context.from_dict(_SETTINGS)
        builder = c2pa.Builder.from_json(json.dumps(_manifest(name)), context)
        if not embedded:
            builder.set_no_embed()
        signed = path.with_name(f".{path.name}.signed")
        try:
            with path.open("rb") as source, signed.open("w+b") as target:
                kind = _EMBEDDED.get(name.suffix.lower(), _BYTES)
                manifest = builder.sign(self._signer(), kind, source, target)
            if embedded:
                signed.replace(path)
                return None
        finally:
            signed.unlink(missing_ok=True)
        beside = sidecar_of(name)
        beside.write_bytes(manifest)
        return beside

    def _signer(self) -> c2pa.Signer:
        import c2pa

        key = self._key = self._key or development_key()
        info = c2pa.C2paSignerInfo(key.algorithm.encode(), key.chain, key.key, None)
        return c2pa.Signer.from_info(info)


@dataclass(frozen=True, slots=True)
class Statement:
    """What the credentials of a file say.

    `state` is Trusted, Valid (unchanged since, by a signer on no list) or Invalid.
    """

    state: str
    generator: str
    signer: str
    synthetic: bool  # made by a trained model
    beside: bool = False  # in a file of its own


def sidecar_of(path: Path) -> Path:
    """Where the credentials of a file are that cannot hold them."""
    return path.with_suffix(".c2pa")


def holds_own(path: Path) -> bool:
    """Whether a file of that name can hold its credentials itself."""
    return path.suffix.lower() in _EMBEDDED


def is_sidecar_of(name: str, path: Path) -> bool:
    """Whether a file was made here for the video of that name: of one stem there may be several."""
    content = path.read_bytes()
    return all(part in content for part in (b"c2pa", b"portraittalk", name.encode()))


def read_credentials(path: Path) -> Statement | None:
    """What the credentials of a file say, in it or beside it; None: it has none.

    Raises:
        BackendUnavailable: the package is not installed.
    """
    try:
        import c2pa
    except ModuleNotFoundError:
        raise BackendUnavailable(
            "content credentials (C2PA) cannot be read: pip install 'portraittalk[c2pa]'"
        ) from None
    beside = sidecar_of(path)
    manifest = None if holds_own(path) or not beside.is_file() else beside.read_bytes()
    if not holds_own(path) and manifest is None:
        return None
    kind, context = _EMBEDDED.get(path.suffix.lower(), _BYTES), c2pa.Context.from_dict(_SETTINGS)
    with path.open("rb") as file:
        try:
            with c2pa.Reader(kind, file, manifest, context=context) as reader:
                said = json.loads(reader.json())
        except c2pa.C2paError as error:
            if "ManifestNotFound" in str(error):
                return None
            return Statement("Invalid", "", str(error), synthetic=False)
    return _statement(said, beside=manifest is not None)


def _statement(said: dict[str, Any], *, beside: bool) -> Statement:
    manifest = said["manifests"][said["active_manifest"]]
    generators = manifest.get("claim_generator_info") or [{}]
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    return Statement(
        said.get("validation_state", "Invalid"),
        " ".join(filter(None, (generators[0].get("name"), generators[0].get("version")))),
        manifest.get("signature_info", {}).get("issuer", ""),
        synthetic=any(
            "rainedAlgorithmicMedia" in action.get("digitalSourceType", "") for action in actions
        ),
        beside=beside,
    )


def _manifest(name: Path) -> dict[str, Any]:
    try:
        number = version("portraittalk")
    except PackageNotFoundError:
        number = "0"
    maker = {"name": "portraittalk", "version": number}
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": maker}
    return {
        "claim_generator_info": [maker],
        "title": name.name,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }
