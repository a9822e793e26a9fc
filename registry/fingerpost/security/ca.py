"""A small certificate authority, for a test or a first cluster: `fingerpost ca`.

Its certificates name what a process is, as a SPIFFE id in the URI SAN, and where it listens, as DNS
and IP SANs. The authority's own certificate has name constraints (RFC 5280, section 4.2.1.10): even
a stolen key of it makes no certificate for another trust domain, nor for a host outside the names
and networks that it was made for.

A folder holds the authority: `ca.pem`, which everybody may have, and `ca-key.pem`. While its key is
being changed, `ca.pem` has two certificates, the one that signs first: programs that trust this
file trust what both have signed.

Keys are ECDSA P-256, which every TLS library takes; Ed25519 certificates are refused by browsers
and by Go before 1.13. Rejected: revocation lists, which nobody reads in time; lives are short
instead. This authority is not for more than one operator on one machine: it asks nobody for
consent, and keeps no list of what it issued. docs/security.md names those to use instead.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.security.certificate_builder import (
    alternative_names,
    check_days,
    dependents,
    general_names,
    is_signed_by,
    key_pem,
    load_key,
    name_constraints,
    new_key_pair,
    pem,
    sign_itself,
    sign_leaf,
)
from fingerpost.security.secret_file import make_folder, read_file, write_file

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["ROLES", "Authority", "Issued", "Role", "make_authority", "spiffe_id"]

Role = Literal["worker", "proxy", "client", "registry"]
ROLES: Final[tuple[Role, ...]] = ("worker", "proxy", "client", "registry")

_CERTIFICATE: Final = "ca.pem"
_KEY: Final = "ca-key.pem"
_KEY_SUFFIX: Final = "-key.pem"
_DOMAIN: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was written.

    Attributes:
        certificate: its file, PEM.
        key: the file of its private key, PEM, mode 0600.
        names: what it names: SPIFFE id, host names, addresses.
        expires: the end of its life, UTC.
    """

    certificate: Path
    key: Path
    names: tuple[str, ...]
    expires: datetime.datetime


def spiffe_id(domain: str, role: Role, name: str = "") -> str:
    """`spiffe://DOMAIN/fingerpost/ROLE/NAME`, without the last part where there is no name.

    A worker's name is the service that it may serve; other names are the operator's choice.

    Raises:
        ConfigurationError: not a valid domain or name, or a worker without a service.
    """
    if not _DOMAIN.fullmatch(domain):
        raise ConfigurationError(
            f"trust domain {domain!r} is not valid: use lower-case letters, digits, dots and "
            "hyphens, such as vision.example.org"
        )
    if role == "worker" and not name:
        raise ConfigurationError(
            "a worker's certificate names its service: `fingerpost ca issue worker SERVICE`"
        )
    if name and not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a valid name of a {role}: use 1 to 63 lower-case letters, digits, "
            "dots and hyphens"
        )
    return "/".join(filter(None, (f"spiffe://{domain}/fingerpost", role, name)))


def make_authority(
    folder: Path, domain: str, *, days: float = 365.0, allow: Sequence[str] = ()
) -> Authority:
    """Make an authority in a folder, which is made if it does not exist.

    Args:
        folder: where its certificate and its key are written.
        domain: the trust domain of all ids that it signs.
        days: its life.
        allow: host names and networks that it may sign for, besides `localhost`, the domain itself
            and private networks. `.svc.cluster.local` is everything below that name.

    Raises:
        ConfigurationError: a value that is not valid, or the folder holds an authority already.
    """
    spiffe_id(domain, "proxy")  # is the domain valid?
    check_days(days)
    make_folder(folder)
    if (folder / _CERTIFICATE).exists():
        raise ConfigurationError(
            f"{folder} holds an authority already, which is not overwritten: everything that it "
            "signed would be refused. Renew it by `fingerpost ca renew`, or use another folder"
        )
    key = new_key_pair()
    constraints = name_constraints(domain, allow)
    certificate = sign_itself(key, domain, constraints, days)
    write_file(folder / _KEY, key_pem(key), mode=0o600)
    write_file(folder / _CERTIFICATE, pem(certificate), mode=0o644)
    return Authority(folder)


class Authority:
    """The authority in a folder, as `make_authority` wrote it.

    Raises:
        ConfigurationError: there is none, its key can be read by others or is not the one of its
            certificate, or it has expired.
    """

    def __init__(self, folder: Path) -> None:
        from cryptography import x509

        self._folder = folder
        if not (folder / _CERTIFICATE).exists():
            raise ConfigurationError(
                f"there is no authority in {folder}: make one by `fingerpost ca init`"
            )
        content = read_file(folder / _CERTIFICATE, "the authority's certificate")
        try:
            self._certificates = x509.load_pem_x509_certificates(content)
        except ValueError as error:
            raise ConfigurationError(
                f"{folder / _CERTIFICATE} does not hold a certificate (PEM): {error}"
            ) from error
        self._key = load_key(folder / _KEY, "the authority's key")
        if self._certificate.public_key() != self._key.public_key():
            raise ConfigurationError(
                f"{folder / _KEY} is not the key of the first certificate in "
                f"{folder / _CERTIFICATE}: put back the pair that belongs together"
            )

    @property
    def certificate(self) -> Path:
        """The file that others trust."""
        return self._folder / _CERTIFICATE

    @property
    def domain(self) -> str:
        """Its trust domain.

        Raises:
            ConfigurationError: its certificate names none, as of another program's authority.
        """
        from cryptography import x509

        for each in self._constraints().permitted_subtrees or ():
            if isinstance(each, x509.UniformResourceIdentifier):
                return each.value
        raise self._not_ours()

    @property
    def expires(self) -> datetime.datetime:
        """The end of its life, UTC."""
        return self._certificate.not_valid_after_utc

    def issue(
        self,
        role: Role,
        name: str = "",
        *,
        also: Sequence[str] = (),
        hosts: Sequence[str] = (),
        days: float = 7.0,
        folder: Path | None = None,
    ) -> Issued:
        """A new key, and a certificate for it.

        Args:
            role: what the process is.
            name: a worker's service; otherwise the operator's choice, or empty.
            also: further names: the other services of a worker that serves several models.
            hosts: host names and addresses that others reach it at; by default this machine's
                loopback. A client needs none.
            days: its life; it ends with the authority's own at the latest.
            folder: where both files are written; by default the authority's folder.

        Raises:
            ConfigurationError: a value that is not valid, a host that the authority may not sign
                for, an expired authority, or the files exist.
        """
        ids = [spiffe_id(self.domain, role, each) for each in (name, *also)]
        names = general_names(ids, hosts or (() if role == "client" else _LOCAL))
        folder = folder or self._folder
        stem = "-".join(filter(None, (role, name)))
        certificate, key = folder / f"{stem}.pem", folder / f"{stem}{_KEY_SUFFIX}"
        for path in (certificate, key):
            if path.exists():
                raise ConfigurationError(
                    f"{path} exists and is not overwritten: `fingerpost ca renew {certificate}` "
                    "renews it; --out writes to another folder"
                )
        made = new_key_pair()
        signed = self._sign(made, f"{role} {name}".strip(), names, days)
        make_folder(folder)
        write_file(key, key_pem(made), mode=0o600)
        write_file(certificate, pem(signed), mode=0o644)
        return _issued(certificate, key, signed)

    def renew(self, certificate: Path, *, days: float = 7.0, new_key: bool = False) -> Issued:
        """The same names for a new life, in the same files.

        With a new key, the key is replaced before the certificate: a program that reads both in
        between finds that they do not belong together, and reads them again.

        Raises:
            ConfigurationError: not a certificate of this authority, its key is missing or not its
                own, an expired authority, or a file that cannot be written.
        """
        from cryptography import x509

        key_path = certificate.with_name(certificate.name.removesuffix(".pem") + _KEY_SUFFIX)
        try:
            old = x509.load_pem_x509_certificate(read_file(certificate, "the certificate"))
        except ValueError as error:
            raise ConfigurationError(f"{certificate} is not a certificate (PEM)") from error
        if old in self._certificates:
            raise ConfigurationError(
                f"{certificate} is the authority itself: renew it by `fingerpost ca renew --dir "
                f"{self._folder}`, without a file"
            )
        if not any(is_signed_by(old, each) for each in self._certificates):
            signer = old.issuer.rfc4514_string()
            why = (
                "but by another or an earlier key of that name: remove its two files and issue it "
                "again by `fingerpost ca issue`, or name the right folder by --dir"
                if old.issuer == self._certificate.subject
                else f"but by {signer!r}: name that authority's folder by --dir"
            )
            raise ConfigurationError(
                f"{certificate} was not signed by the authority in {self._folder}, {why}"
            )
        key = load_key(key_path, "the certificate's key")
        if old.public_key() != key.public_key():
            raise ConfigurationError(
                f"{key_path} is not the key of {certificate}: put back the pair that belongs "
                "together, or issue another certificate"
            )
        common = old.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = alternative_names(old, certificate)
        if new_key:
            key = new_key_pair()
        signed = self._sign(key, str(common[0].value) if common else "", names, days)
        if new_key:
            write_file(key_path, key_pem(key), mode=0o600, replace=True)
        write_file(certificate, pem(signed), mode=0o644, replace=True)
        return _issued(certificate, key_path, signed)

    def renew_itself(
        self, *, days: float = 365.0, new_key: bool = False, retire_old: bool = False
    ) -> Authority:
        """A new life for the authority, also where the old one is over.

        With its old key, everything that it signed stays valid. With a new one, `ca.pem` has the
        new certificate and the old ones, until `retire_old` leaves only the first.

        Raises:
            ConfigurationError: a value that is not valid, a file that cannot be written, or a
                certificate in the folder that an old key has signed, so that everybody would refuse
                it.
        """
        check_days(days)
        if retire_old:
            current, *retired = self._certificates
            if depending := dependents(self._folder, current, retired):
                raise ConfigurationError(
                    f"what the old key has signed would be refused: {', '.join(depending)}. Renew "
                    f"each by `fingerpost ca renew CERTIFICATE --dir {self._folder}`, or remove "
                    "those that nobody uses; and renew those in other folders, too"
                )
            kept = self._certificates[:1]
        else:
            key = new_key_pair() if new_key else self._key
            made = sign_itself(key, self.domain, self._constraints(), days)
            kept = [made, *(self._certificates if new_key else self._certificates[1:])]
            if new_key:
                # First the certificates: a program that reads them now trusts both keys.
                write_file(
                    self._folder / _CERTIFICATE,
                    b"".join(map(pem, [*self._certificates, made])),
                    mode=0o644,
                    replace=True,
                )
                write_file(self._folder / _KEY, key_pem(key), mode=0o600, replace=True)
        write_file(self._folder / _CERTIFICATE, b"".join(map(pem, kept)), mode=0o644, replace=True)
        return Authority(self._folder)

    @property
    def _certificate(self) -> x509.Certificate:
        return self._certificates[0]

    def _constraints(self) -> x509.NameConstraints:
        from cryptography import x509

        try:
            extensions = self._certificate.extensions
            return extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound as error:
            raise self._not_ours() from error

    def _not_ours(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self._folder / _CERTIFICATE} was not made by `fingerpost ca init`: it names no "
            "trust domain. Use the program that made it"
        )

    def _sign(
        self,
        key: EllipticCurvePrivateKey,
        common_name: str,
        names: list[x509.GeneralName],
        days: float,
    ) -> x509.Certificate:
        check_days(days)
        now = datetime.datetime.now(datetime.UTC)
        if now >= self.expires:
            raise ConfigurationError(
                f"the authority in {self._folder} expired at {self.expires:%Y-%m-%d %H:%M} UTC: "
                "renew it by `fingerpost ca renew`"
            )
        self._check_allowed(names)
        return sign_leaf(
            self._key,
            self._certificate,
            key=key,
            common_name=common_name,
            names=names,
            ends=min(now + datetime.timedelta(days=days), self.expires),
        )

    def _check_allowed(self, names: Iterable[x509.GeneralName]) -> None:
        from cryptography import x509

        permitted = self._constraints().permitted_subtrees or ()
        networks: list[Any] = [each.value for each in permitted if isinstance(each, x509.IPAddress)]
        hosts = [each.value.lower() for each in permitted if isinstance(each, x509.DNSName)]
        for name in names:
            if isinstance(name, x509.IPAddress):
                fits = any(name.value in each for each in networks)
            elif isinstance(name, x509.DNSName):
                host = "." + name.value.lower()
                fits = any(host.endswith("." + each.removeprefix(".")) for each in hosts)
            else:
                continue
            if not fits:
                raise ConfigurationError(
                    f"host {str(name.value)!r} is outside what the authority in {self._folder} "
                    f"may sign for ({', '.join([*hosts, *map(str, networks)])}): make one "
                    f"in another folder by `fingerpost ca init --allow {name.value}`"
                )


def _issued(certificate: Path, key: Path, signed: x509.Certificate) -> Issued:
    from cryptography import x509

    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return Issued(
        certificate=certificate,
        key=key,
        names=tuple(str(each.value) for each in names),
        expires=signed.not_valid_after_utc,
    )
