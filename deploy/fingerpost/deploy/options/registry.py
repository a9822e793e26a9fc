"""The options for access to the registry, which are the same for every subcommand."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from fingerpost.deploy.options.group import Option, takes_group
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig

__all__ = ["registry_arguments", "takes_registry_options", "with_registry_options"]

_PANEL: Final = "Registry access"
# Before a value, or in a list of them.
_FIELD: Final = re.compile(
    r"\b(?:ca_file|cert_file|key_file|token_file|token(?= and token_file))\b"
)


def _option(name: str, text: str, *, env: str | None = None, metavar: str | None = None) -> Any:
    return typer.Option(
        f"--{name}",
        envvar=f"FINGERPOST_{env}" if env else None,
        metavar=metavar,
        help=text,
        rich_help_panel=_PANEL,
        show_default=False,
    )


_DEFAULT: Final = "http://127.0.0.1:12481"
_REGISTRIES: Final[tuple[Option, ...]] = (
    (
        "registry",
        Annotated[
            list[str],
            typer.Option(
                "--registry",
                envvar="FINGERPOST_REGISTRY",
                metavar="URL",
                help="The registry: a Consul agent, as consul://HOST:8500, kubernetes://NAMESPACE, "
                "or `fingerpost registry`. Repeatable; see --registries.",
            ),
        ],
        [_DEFAULT],
    ),
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
        "foreign_service",
        Annotated[
            list[str] | None,
            _option("foreign-service", "Use foreign workers of this service only; repeatable.",
                    metavar="NAME"),
        ],
        None,
    ),
    (
        "no_foreign_services",
        Annotated[
            bool,
            _option("no-foreign-services", "Use no worker that is not Fingerpost's."),
        ],
        False,
    ),
    (
        "registries",
        Annotated[
            Literal["merged", "failover"],
            _option("registries", "Of several: the workers of all (merged), or those of the first "
                    "that has a healthy one (failover)."),
        ],
        "merged",
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
    """Give a subcommand these options; it gets a `RegistryConfig` as argument `registry_config`.

    An argument `registry`, if it has one, is the URL, or several of them separated by spaces.
    """
    given = inspect.signature(command, eval_str=True).parameters.get("registry")
    if given is not None and given.annotation is str:
        command = takes_group(command, "registry", _REGISTRIES, _joined)
    return takes_group(command, "registry_config", _OPTIONS, _registry_config)


def _joined(*, registry: list[str]) -> str:
    return " ".join(registry)


def registry_arguments(config: RegistryConfig) -> list[str]:
    """The arguments that give another subcommand the same access, but for the token itself.

    Other users of the machine see arguments: a token is passed on by `FINGERPOST_REGISTRY_TOKEN`.
    """
    given = {
        "--registry-token-file": config.token_file,
        "--registry-ca-file": config.ca_file,
        "--registry-cert-file": config.cert_file,
        "--registry-key-file": config.key_file,
        "--namespace": config.namespace,
        "--registration-keys": config.registration_keys,
        "--snapshots": config.snapshot_folder,
    }
    return [
        *(f"{option}={value}" for option, value in given.items() if value is not None),
        *(["--registry-insecure"] if not config.verify else []),
        *([f"--registries={config.registries}"] if config.registries != "merged" else []),
        *(f"--datacenter={each}" for each in config.datacenters),
        *(f"--allow-network={each}" for each in config.allow_networks),
        *(f"--foreign-service={each}" for each in config.foreign_services or ()),
        *(["--no-foreign-services"] if config.foreign_services == () else []),
    ]


def with_registry_options(message: object) -> str:
    """A message about a `RegistryConfig`, with the options in the place of its fields."""
    text = _FIELD.sub(lambda found: f"--registry-{found[0].replace('_', '-')}", str(message))
    return text.replace("verify=False", "--registry-insecure")


def _registry_config(**values: Any) -> RegistryConfig:
    try:
        return _made(**values)
    except ConfigurationError as error:
        raise ConfigurationError(with_registry_options(error)) from error


def _made(**values: Any) -> RegistryConfig:
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
        foreign_services=_foreign(**values),
        registration_keys=_text(values["registration_keys"]),
        snapshot_folder=_text(values["snapshots"]),
        registries=values["registries"],
    )


def _foreign(
    *, foreign_service: list[str] | None, no_foreign_services: bool, **_: Any
) -> tuple[str, ...] | None:
    if no_foreign_services and foreign_service:
        raise ConfigurationError(
            f"--no-foreign-services and --foreign-service {foreign_service[0]}: leave one out"
        )
    return tuple(foreign_service) if foreign_service else () if no_foreign_services else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
