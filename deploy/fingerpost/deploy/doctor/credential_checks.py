"""Whether certificates are valid now, and whether secrets are readable by their owner alone."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.finding import Finding, error, ok, warning
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fingerpost.registry import RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["check_credentials"]

# Less than certificates that are renewed by themselves have left: cert-manager and SPIRE renew at
# two thirds and at half of their lives, of which the shortest are of some hours.
_SOON_S: Final = 3600.0


def check_credentials(
    registry_config: RegistryConfig, tls: TlsConfig | None, token_file: str | None = None
) -> Iterator[Finding]:
    """The findings for the files that the options name.

    Args:
        registry_config: has a token, and a key for the registry.
        tls: has the certificate and key of workers, or of a client.
        token_file: what proxies are shown.
    """
    secrets = {
        "--registry-token-file": registry_config.token_file,
        "--registry-key-file": registry_config.key_file,
        "--tls-key": None if tls is None else tls.key,
        "--token-file": token_file,
    }
    yield from _private(secrets)
    if tls is not None and tls.cert is not None:
        yield _valid(tls)


def _private(secrets: Mapping[str, str | None]) -> Iterator[Finding]:
    for option, file in secrets.items():
        try:
            mode = 0 if file is None else Path(file).stat().st_mode & 0o777
        except OSError:  # whoever reads it says so
            continue
        if mode & 0o004:
            text = f"everybody on this machine can read {option} {file} (mode {mode:04o})"
            yield warning("secrets", text, f"chmod 600 {file}")


def _valid(tls: TlsConfig) -> Finding:
    from fingerpost.security.tls.server import ServerTls

    name = f"--tls-cert {tls.cert}"
    renew = "renew it, or name another file"
    try:
        certificate = ServerTls(tls).certificate
    except ConfigurationError as failed:
        return error("certificate", str(failed), renew)
    now = time.time()
    if certificate.not_before > now:
        date = _date(certificate.not_before)
        text = f"{name} is valid only from {date} on"
        return error("certificate", text, "look at this machine's clock, and at its maker's")
    date = _date(certificate.not_after)
    if certificate.not_after - now < _SOON_S:
        return warning("certificate", f"{name} expires soon, at {date}", renew)
    return ok("certificate", f"{name} is valid until {date}")


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
