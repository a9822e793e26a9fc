"""Certificates and their keys, made by `cryptography`; what is in them is `ca`'s decision."""

from __future__ import annotations

import datetime
import ipaddress
import re
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.security.secret_file import read_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = [
    "alternative_names",
    "check_days",
    "dependents",
    "general_names",
    "is_signed_by",
    "key_pem",
    "load_key",
    "name_constraints",
    "new_key_pair",
    "pem",
    "sign_itself",
    "sign_leaf",
]

_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII | re.IGNORECASE)
# Private networks and this machine: where a worker's address is, unless `allow` says more.
_NETWORKS: Final = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
)
# Clocks of a cluster differ; a certificate that is valid from now on would be refused by some.
_BACKDATED: Final = datetime.timedelta(minutes=5)
_MAX_DAYS: Final = 3650


def name_constraints(domain: str, allow: Sequence[str]) -> x509.NameConstraints:
    """What an authority may sign for; see `make_authority` for `allow`."""
    from cryptography import x509

    permitted: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(domain),
        x509.DNSName("localhost"),
        x509.DNSName(domain),
        *(x509.IPAddress(ipaddress.ip_network(each)) for each in _NETWORKS),
    ]
    for each in allow:
        try:
            permitted.append(x509.IPAddress(ipaddress.ip_network(each, strict=False)))
        except ValueError:
            # A name stands for itself and all names below it, with and without a dot (RFC 5280).
            permitted.append(_dns_name(each.removeprefix(".")))
    return x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)


def general_names(uris: Sequence[str], hosts: Sequence[str]) -> list[x509.GeneralName]:
    """The SAN of a certificate: URIs, and host names and addresses.

    Raises:
        ConfigurationError: a host that is neither.
    """
    from cryptography import x509

    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(each) for each in uris]
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(_dns_name(host))
    return names


def _dns_name(host: str) -> x509.DNSName:
    from cryptography import x509

    if not _HOST.fullmatch(host) or ".." in host:
        raise ConfigurationError(
            f"{host!r} is neither a host name nor an IP address or network: give one such as "
            "10.0.0.7 or worker-1.example.org, without a port"
        )
    return x509.DNSName(host)


def sign_itself(
    key: EllipticCurvePrivateKey, domain: str, constraints: x509.NameConstraints, days: float
) -> x509.Certificate:
    """The certificate of an authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = f"Fingerpost authority of {domain}"[:64]
    builder = (
        _builder(key, name, None)
        .not_valid_after(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(constraints, critical=True)
    )
    return builder.sign(key, hashes.SHA256())


def sign_leaf(
    signer: EllipticCurvePrivateKey,
    authority: x509.Certificate,
    *,
    key: EllipticCurvePrivateKey,
    common_name: str,
    names: Sequence[x509.GeneralName],
    ends: datetime.datetime,
) -> x509.Certificate:
    """A certificate for `key`, for servers and clients; a client's only for clients."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if not common_name.startswith("client"):
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(key, common_name, authority.subject)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    return builder.sign(signer, hashes.SHA256())


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed it; its life does not matter."""
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def alternative_names(certificate: x509.Certificate, path: Path) -> list[x509.GeneralName]:
    """The hosts and ids that a certificate names.

    Raises:
        ConfigurationError: none; `path` is its file.
    """
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound as error:
        raise ConfigurationError(
            f"{path} names no host and no SPIFFE id: issue another one by `fingerpost ca issue`"
        ) from error
    return list(found.value)


def dependents(
    folder: Path, current: x509.Certificate, retired: Sequence[x509.Certificate]
) -> list[str]:
    """The certificates in a folder that nobody trusts without the retired authorities."""
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    found = []
    for path in sorted(folder.glob("*.pem")):
        try:
            each = x509.load_pem_x509_certificate(read_file(path, "the certificate"))
        except (ValueError, ConfigurationError):  # a key, or another file
            continue
        if each.not_valid_after_utc <= now or is_signed_by(each, current):
            continue
        if any(is_signed_by(each, old) for old in retired):
            found.append(str(path))
    return found


def new_key_pair() -> EllipticCurvePrivateKey:
    """A new ECDSA P-256 key.

    Raises:
        ConfigurationError: the library `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ConfigurationError(
            "certificates need one more package: pip install 'fingerpost[security]'"
        ) from error
    return ec.generate_private_key(ec.SECP256R1())


def load_key(path: Path, what: str) -> EllipticCurvePrivateKey:
    """The private key in a file (PEM).

    Raises:
        ConfigurationError: missing, readable by others, or not an ECDSA key without a pass phrase.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    content = read_file(path, what, private=True)
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError):
        # Without a cause, which may show parts of the key.
        raise ConfigurationError(
            f"{what}, {path}, is not a private key (PEM) without a pass phrase"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{what}, {path}, is not an ECDSA key")
    return key


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """The private key as PKCS 8, not encrypted."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def check_days(days: float) -> None:
    """Raise `ConfigurationError` where it is not a life of a certificate."""
    if not 0 < days <= _MAX_DAYS:
        raise ConfigurationError(
            f"a life of {days:g} days is not valid: use more than 0, at most {_MAX_DAYS}"
        )


def _builder(
    key: EllipticCurvePrivateKey, common_name: str, issuer: x509.Name | None
) -> x509.CertificateBuilder:
    from cryptography import x509

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name[:64])])
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.UTC) - _BACKDATED)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
