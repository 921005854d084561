"""What content credentials are signed with: a certificate of one's own, or one made for development."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from engine.errors import ConfigError

DEVELOPMENT = "portraittalk development"  # organisation in certificates made here
_YEARS = 10
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_OTHER_USES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A chain of certificates, the signer's first, and the key of the first; both PEM."""

    chain: bytes
    key: bytes
    algorithm: str  # as C2PA names it


def read_key(certificate: Path, key: Path) -> SigningKey:
    """Read a chain and its key, both PEM files.

    Raises:
        ConfigError: they cannot be read, or are not those of each other.
    """
    try:
        chain, secret = certificate.read_bytes(), key.read_bytes()
        certificates = x509.load_pem_x509_certificates(chain)
        private = serialization.load_pem_private_key(secret, None)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{certificate} and {key} are not PEM files without password: {error}"
        ) from None
    if private.public_key() != certificates[0].public_key():
        raise ConfigError(f"{key} is not the key of the first certificate in {certificate}")
    chain = b"".join(each.public_bytes(_PEM) for each in certificates)
    return SigningKey(chain, _plain(private), _algorithm(private))


def development_key() -> SigningKey:
    """The key and certificate of this user, made at first use and kept in the configuration folder.

    Nobody trusts it: it shows who changed nothing, not who signed.
    """
    path = Path(typer.get_app_dir("portraittalk")) / "c2pa-development.pem"
    try:
        return read_key(path, path)
    except ConfigError:
        made = _made()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        with os.fdopen(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(made.key + made.chain)
        partial.replace(path)
    except OSError:
        pass  # a user without a home signs with a new one each time
    return made


def _plain(private: PrivateKeyTypes) -> bytes:
    return private.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _algorithm(private: object) -> str:
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ConfigError("the signing key is of a kind that C2PA does not take: EC, RSA or Ed25519")


def _made() -> SigningKey:
    """A new key with its certificate and that of its issuer: C2PA takes no certificate that signs itself."""
    issuer, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    first = _certificate(signer.public_key(), issuer, "signer")
    root = _certificate(issuer.public_key(), issuer, "issuer")
    return SigningKey(
        first.public_bytes(_PEM) + root.public_bytes(_PEM), _plain(signer), _algorithm(signer)
    )


def _certificate(
    public: ec.EllipticCurvePublicKey, issuer: ec.EllipticCurvePrivateKey, role: str
) -> x509.Certificate:
    """The certificate of the `signer` or of its `issuer`."""
    signs, now = role == "signer", datetime.datetime.now(datetime.UTC)
    others = dict.fromkeys(_OTHER_USES, False)
    usage = x509.KeyUsage(
        digital_signature=signs, key_cert_sign=not signs, crl_sign=not signs, **others
    )
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    builder = (
        x509.CertificateBuilder(_name("issuer"), _name(role), public, x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=not signs, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(identifier, critical=False)
    )
    if signs:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])  # as C2PA asks
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer, hashes.SHA256())


def _name(role: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, DEVELOPMENT)
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, role)])
