"""The options of TLS, the same for every subcommand that serves, or asks workers and proxies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.deploy.options.group import Option, takes_group

if TYPE_CHECKING:
    from fingerpost.security.tls import TlsConfig

__all__ = ["server_tls_arguments", "takes_client_tls_options", "takes_server_tls_options"]

_PANEL: Final = "TLS"


def _file(field: str, option: str, text: str) -> Option:
    env = f"FINGERPOST_{option.removeprefix('--').replace('-', '_').upper()}"
    declared = typer.Option(
        option, envvar=env, metavar="FILE", help=text, rich_help_panel=_PANEL, show_default=False
    )
    return field, Annotated[Path | None, declared], None


_CERT: Final = "--tls-cert"
_KEY: Final = _file("tls_key", "--tls-key", "Its private key (PEM).")
_CA: Final = _file("tls_ca", "--tls-ca", "Authority of workers and proxies; no other one is used.")
_DOMAIN: Final[Option] = (
    "trust_domain",
    Annotated[
        str | None,
        typer.Option(
            "--trust-domain",
            envvar="FINGERPOST_TRUST_DOMAIN",
            metavar="NAME",
            help="Check workers' SPIFFE ids in this domain, not their host names.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ],
    None,
)
_ALLOW_PLAIN: Final[Option] = (
    "tls_allow_plain",
    Annotated[
        bool,
        typer.Option(
            "--tls-allow-plain",
            help="Use workers without TLS too, while a cluster changes over.",
            rich_help_panel=_PANEL,
        ),
    ],
    False,
)
_CLIENT: Final = (
    _CA,
    _file("tls_cert", _CERT, "Client certificate, for servers that ask for one (PEM)."),
    _KEY,
    _DOMAIN,
    _ALLOW_PLAIN,
)
_SERVER: Final = (
    _file("tls_cert", _CERT, "Certificate to serve with; read again when it changes (PEM)."),
    _KEY,
    _file("tls_client_ca", "--tls-client-ca", "Take only clients with a certificate of these."),
)


def takes_client_tls_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a subcommand the options of a client; it gets a `TlsConfig`, or None, as `tls`."""
    return takes_group(command, "tls", _CLIENT, _config)


def takes_server_tls_options(
    command: Callable[..., None], *, asks_workers: bool
) -> Callable[..., None]:
    """Give a subcommand the options of a server, which also asks workers if `asks_workers`."""
    options = (*_SERVER, _CA, _DOMAIN, _ALLOW_PLAIN) if asks_workers else _SERVER
    return takes_group(command, "tls", options, _config)


def server_tls_arguments(tls: TlsConfig | None, *, asks_workers: bool) -> list[str]:
    """The arguments that give another subcommand the same; see `takes_server_tls_options`."""
    if tls is None:
        return []
    files = {_CERT: tls.cert, "--tls-key": tls.key, "--tls-client-ca": tls.client_ca}
    if asks_workers:
        files |= {"--tls-ca": tls.ca, "--trust-domain": tls.trust_domain}
    given = [f"{option}={value}" for option, value in files.items() if value is not None]
    return given + (["--tls-allow-plain"] if asks_workers and tls.allow_plain else [])


def _config(**values: Any) -> TlsConfig | None:
    """The configuration; None where no option is given."""
    if not any(values.values()):
        return None
    from fingerpost.security.tls import TlsConfig

    return TlsConfig(
        cert=_text(values["tls_cert"]),
        key=_text(values["tls_key"]),
        client_ca=_text(values.get("tls_client_ca")),
        ca=_text(values.get("tls_ca")),
        trust_domain=values.get("trust_domain"),
        allow_plain=values.get("tls_allow_plain", False),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
