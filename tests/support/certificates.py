"""Real certificates for tests: an authority, and what it signs, with SPIFFE ids in the URI SAN.

Keys are P-256, because RSA keys take a second each to make.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["TRUST_DOMAIN", "Authority", "Pair", "spiffe_worker"]

TRUST_DOMAIN = "example.org"
_MINUTE = datetime.timedelta(minutes=1)


def spiffe_worker(service: str, domain: str = TRUST_DOMAIN) -> str:
    """The SPIFFE id of a worker of `service`."""
    return f"spiffe://{domain}/fingerpost/worker/{service}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority of its own; `folder / NAME.pem` is its certificate.

    Args:
        folder: where all files go.
        name: of the authority, also in its subject.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        now = _now()
        self._cert = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _MINUTE)
            .not_valid_after(now + 60 * _MINUTE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self._cert.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str,
        *,
        uris: Sequence[str] = (),
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
        valid_from_s: float = -60.0,
        valid_to_s: float = 3600.0,
    ) -> Pair:
        """A certificate for servers and clients; a second one of the same name replaces the first.

        Args:
            name: of the two files, and the subject's common name.
            uris: SPIFFE ids.
            hosts: host names and IP addresses.
            valid_from_s: from when on it is valid, in seconds from now; `valid_to_s` likewise.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(each) for each in uris]
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() + datetime.timedelta(seconds=valid_from_s))
            .not_valid_after(_now() + datetime.timedelta(seconds=valid_to_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pair = Pair(self._folder / f"{name}.cert.pem", self._folder / f"{name}.key.pem")
        _replace(
            pair.key,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        pair.key.chmod(0o600)
        signed = builder.sign(self._key, hashes.SHA256())
        _replace(pair.cert, signed.public_bytes(serialization.Encoding.PEM))
        return pair

    def worker(self, service: str, name: str | None = None) -> Pair:
        """A certificate whose SPIFFE id names a worker of `service`, on this machine."""
        return self.issue(name or f"worker-{service}", uris=[spiffe_worker(service)])


def _replace(path: Path, content: bytes) -> None:
    """Put a file in its place in one step."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
