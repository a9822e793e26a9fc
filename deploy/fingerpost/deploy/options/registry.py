"""The options for access to the registry, which are the same for every subcommand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fingerpost.deploy.options.group import Option, takes_group
from fingerpost.registry.config import RegistryConfig

__all__ = ["takes_registry_options"]

_PANEL: Final = "Registry access"


def _option(name: str, text: str, *, env: str | None = None, metavar: str | None = None) -> Any:
    return typer.Option(
        f"--{name}",
        envvar=f"FINGERPOST_{env}" if env else None,
        metavar=metavar,
        help=text,
        rich_help_panel=_PANEL,
        show_default=False,
    )


_OPTIONS: Final[tuple[Option, ...]] = (
    (
        "registry_token",
        Annotated[
            str | None,
            _option("registry-token", "ACL token; a file hides it from other users.",
                    env="REGISTRY_TOKEN", metavar="TOKEN"),
        ],
        None,
    ),
    (
        "registry_token_file",
        Annotated[
            Path | None,
            _option("registry-token-file", "File with the ACL token; read again when it changes.",
                    env="REGISTRY_TOKEN_FILE", metavar="FILE"),
        ],
        None,
    ),
    (
        "registry_ca_file",
        Annotated[
            Path | None,
            _option("registry-ca-file", "Authority of the registry's certificate (PEM).",
                    env="REGISTRY_CA_FILE", metavar="FILE"),
        ],
        None,
    ),
    (
        "registry_cert_file",
        Annotated[
            Path | None,
            _option("registry-cert-file", "Client certificate for the registry (PEM).",
                    env="REGISTRY_CERT_FILE", metavar="FILE"),
        ],
        None,
    ),
    (
        "registry_key_file",
        Annotated[
            Path | None,
            _option("registry-key-file", "Private key of the client certificate (PEM).",
                    env="REGISTRY_KEY_FILE", metavar="FILE"),
        ],
        None,
    ),
    (
        "registry_insecure",
        Annotated[
            bool,
            _option("registry-insecure", "Do not check the certificate of the registry."),
        ],
        False,
    ),
    (
        "datacenter",
        Annotated[
            list[str] | None,
            _option("datacenter", "Datacenter to look in; repeatable, in order.",
                    metavar="NAME"),
        ],
        None,
    ),
    (
        "namespace",
        Annotated[str | None, _option("namespace", "Consul Enterprise namespace.", metavar="NAME")],
        None,
    ),
    (
        "allow_network",
        Annotated[
            list[str] | None,
            _option("allow-network", "Accept only workers in this network.",
                    metavar="CIDR"),
        ],
        None,
    ),
    (
        "registration_keys",
        Annotated[
            Path | None,
            _option("registration-keys", "Accept only workers that a key in this JWKS has signed.",
                    env="REGISTRATION_KEYS", metavar="FILE"),
        ],
        None,
    ),
    (
        "snapshots",
        Annotated[
            Path | None,
            _option("snapshots", "Folder of snapshots, for a start in an outage.",
                    metavar="DIR"),
        ],
        None,
    ),
)  # fmt: skip


def takes_registry_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a subcommand these options; it gets a `RegistryConfig` as argument `registry_config`."""
    return takes_group(command, "registry_config", _OPTIONS, _registry_config)


def _registry_config(**values: Any) -> RegistryConfig:
    return RegistryConfig(
        token=values["registry_token"],
        token_file=_text(values["registry_token_file"]),
        ca_file=_text(values["registry_ca_file"]),
        cert_file=_text(values["registry_cert_file"]),
        key_file=_text(values["registry_key_file"]),
        verify=not values["registry_insecure"],
        datacenters=tuple(values["datacenter"] or ()),
        namespace=values["namespace"],
        allow_networks=tuple(values["allow_network"] or ()),
        registration_keys=_text(values["registration_keys"]),
        snapshot_folder=_text(values["snapshots"]),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
