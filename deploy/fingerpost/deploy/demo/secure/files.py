"""The certificates, keys and policy of the secure demo, made anew for each run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fingerpost.security.ca import make_authority
from fingerpost.security.callers.policy_editor import add_caller
from fingerpost.security.key_files import save_public_keys, save_signing_key
from fingerpost.security.keys import SigningKey
from fingerpost.security.secret_file import write_file
from fingerpost.security.tls import TlsConfig

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.security.ca import Issued

__all__ = ["TRUST_DOMAIN", "SecureFiles"]

TRUST_DOMAIN: Final = "demo.example.org"
"""The trust domain of all certificates; RFC 2606 keeps `example.org` for such use."""

_TENANTS: Final = """\
[tenants.plant]             # the camera's
models = ["{service}"]
weight = 2

[tenants.guests]            # has another model, and not this one
models = ["flowers"]
images_per_s = 10
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureFiles:
    """What `make` wrote.

    Attributes:
        folder: all of it; remove it to take back every right.
        ca: the authority's certificate.
        proxy, worker, registry: what these processes show, and whom they believe.
        camera, visitor: certificates of the callers of the tenants `plant` and `guests`.
        stranger: a certificate of an authority that nobody believes.
        camera_key, visitor_key: their API keys.
        callers: the policy file.
        lease_key: the proxy's key for leases.
        registration_key: the workers' key for their registrations.
        registration_keys: its public part.
        audit_log: where orders and refusals are written.
    """

    folder: Path
    ca: Path
    proxy: TlsConfig
    worker: TlsConfig
    registry: TlsConfig
    camera: TlsConfig
    visitor: TlsConfig
    stranger: TlsConfig
    camera_key: str
    visitor_key: str
    callers: Path
    lease_key: Path
    registration_key: Path
    registration_keys: Path
    audit_log: Path

    @classmethod
    def make(cls, folder: Path, service: str) -> SecureFiles:
        """Write all files, as `fingerpost ca`, `keys` and `caller` do.

        Args:
            folder: exists, and is empty.
            service: the model that the workers serve.

        Raises:
            ConfigurationError: a file cannot be written, or the extra `security` is not installed.
        """
        authority = make_authority(folder / "ca", TRUST_DOMAIN)
        other = make_authority(folder / "other-ca", TRUST_DOMAIN)
        ca = authority.certificate
        callers = folder / "callers.toml"
        write_file(callers, _TENANTS.format(service=service).encode(), mode=0o600)
        signing = SigningKey.generate()
        save_signing_key(signing, folder / "registration.key")
        save_public_keys(signing.public, folder / "registration-keys.json")
        save_signing_key(SigningKey.generate(), folder / "lease.key")
        return cls(
            folder=folder,
            ca=ca,
            proxy=_tls(ca, authority.issue("proxy"), serves=True),
            worker=_tls(ca, authority.issue("worker", service), serves=True),
            registry=_tls(ca, authority.issue("registry"), serves=True),
            camera=_tls(ca, authority.issue("client", "camera")),
            visitor=_tls(ca, authority.issue("client", "visitor")),
            stranger=_tls(ca, other.issue("client", "stranger")),
            camera_key=add_caller(callers, "camera", tenant="plant", role="").key,
            visitor_key=add_caller(callers, "visitor", tenant="guests", role="").key,
            callers=callers,
            lease_key=folder / "lease.key",
            registration_key=folder / "registration.key",
            registration_keys=folder / "registration-keys.json",
            audit_log=folder / "audit.log",
        )


def _tls(ca: Path, issued: Issued, *, serves: bool = False) -> TlsConfig:
    return TlsConfig(
        cert=str(issued.certificate),
        key=str(issued.key),
        client_ca=str(ca) if serves else None,
        ca=str(ca),
        trust_domain=TRUST_DOMAIN,
    )
