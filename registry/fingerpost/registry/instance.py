"""One registered worker process, and the models it serves."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from fingerpost.basics.renames import renamed_attributes
from fingerpost.errors import InvalidInstance
from fingerpost.registry.names import (
    check_alias,
    check_id,
    check_service,
    check_version,
    split_reference,
)
from fingerpost.registry.old_spellings import warn_old_spelling

__all__ = [
    "PROTOCOLS",
    "PROTOCOL_KEY",
    "SCHEME_KEY",
    "Instance",
    "ModelInfo",
    "ModelReference",
    "address_in_id",
    "format_address",
    "identity_path",
    "is_address",
    "is_host",
    "split_target",
]

# The key of `Instance.meta` that says `https` of a worker that speaks TLS.
SCHEME_KEY: Final = "scheme"
# The key of `Instance.meta` that makes a worker a foreign one, and says what it speaks.
PROTOCOL_KEY: Final = "protocol"
PROTOCOLS: Final = ("fingerpost", "v2", "tfserving", "torchserve", "form")

_HOSTNAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.IGNORECASE | re.ASCII,
)
# A name whose last part is a number is an address, mistyped or in disguise: getaddrinfo takes
# 0xa9fea9fe and 0251.254.43518 for 169.254.169.254 (inet_aton; URL Standard, 'ends in a number').
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE | re.ASCII)


def format_address(host: str, port: int) -> str:
    """`host:port` as in a URL, an IPv6 host in brackets (RFC 3986)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_in_id(host: str, port: int) -> str:
    """The part of a worker's ids that its address gives: `10.0.0.7-8501`."""
    return f"{host.replace(':', '-').strip('-')}-{port}"


@renamed_attributes(label="alias")
class ModelReference(msgspec.Struct, frozen=True):
    """The model, and version or alias, that a caller asks for: `flowers@3`, `flowers@stable`."""

    model: str
    version: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        """Parse the written form. Raises `InvalidName` where it is not valid."""
        return cls(*split_reference(text))

    def __str__(self) -> str:
        wanted = self.version or self.alias
        return f"{self.model}@{wanted}" if wanted else self.model


@renamed_attributes(labels="aliases")
class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A model that an instance serves: its versions, newest first, and the aliases on them.

    Only a foreign worker may have no versions: what it serves is not known.
    """

    name: str
    versions: tuple[str, ...]
    aliases: Mapping[str, str] = {}
    # What release 0.1.0 writes for `aliases`. It stays only on what was read from that release,
    # until an `Instance` removes it and logs a warning.
    _labels: Mapping[str, str] | UnsetType = msgspec.field(name="labels", default=UNSET)

    def __post_init__(self) -> None:
        if self._labels and not self.aliases:
            msgspec.structs.force_setattr(self, "aliases", self._labels)
        elif self._labels is not UNSET:
            msgspec.structs.force_setattr(self, "_labels", UNSET)
        check_service(self.name)
        for version in self.versions:
            check_version(version)
        for alias, version in self.aliases.items():
            check_alias(alias)
            if version not in self.versions:
                raise InvalidInstance(
                    f"model {self.name!r}: alias {alias!r} points to version {version!r}, which "
                    f"is not among {', '.join(self.versions)}"
                )

    def serves(self, reference: ModelReference) -> bool:
        """Whether this model has the version or alias asked for (any, where none is)."""
        if reference.model != self.name:
            return False
        if reference.version is not None:
            return reference.version in self.versions
        return reference.alias is None or reference.alias in self.aliases


class Instance(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One registered worker process.

    Attributes:
        id: unique for every process that ever ran: name-host-port-nonce. All but the nonce stays
            when a worker is started again at its address (`address_in_id`).
        service: the name that clients ask for.
        host: an IP address or a host name that clients can reach.
        ports: port by transport; `http` is always among them.
        models: the models that it serves.
        weight: its share of requests relative to others, 1 to 65535 (Consul's `Weights.Passing`).
        zone: its rack or availability zone; empty when unknown.
        boot_id: the random number of this process, also in its load reports; 0 when unknown.
        meta: framework, device, wanted image size and the like, for people and tools; keys of
            letters, digits, `_` and `-`. `scheme` is `https` where the worker speaks TLS: there,
            because every registry, and every proxy of an earlier release, passes it on. `protocol`
            is there for the same reason, of a foreign worker only: see `foreign`.
        signature: of everything else, by a registration key; see `entry_signature`.
    """

    id: str
    service: str
    host: str
    ports: Mapping[str, int]
    models: tuple[ModelInfo, ...]
    weight: int = 1
    zone: str = ""
    boot_id: int = 0
    meta: Mapping[str, str] = {}
    signature: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_id(self.id)
        check_service(self.service)
        if not is_host(self.host):
            raise InvalidInstance(
                f"instance {self.id}: {self.host!r} is neither an IP address nor a host name"
            )
        if "http" not in self.ports:
            raise InvalidInstance(f"instance {self.id}: no port for transport 'http'")
        for transport, port in self.ports.items():
            if not 1 <= port <= 65535:
                raise InvalidInstance(
                    f"instance {self.id}: port {port} of {transport!r} is not in 1..65535"
                )
        if not 1 <= self.weight <= 65535:
            raise InvalidInstance(f"instance {self.id}: weight {self.weight} is not in 1..65535")
        if not self.models:
            raise InvalidInstance(f"instance {self.id}: no model is listed")
        if any(model._labels for model in self.models):
            self._take_off_labels()
        self._check_foreign()

    def _check_foreign(self) -> None:
        if PROTOCOL_KEY not in self.meta:
            for model in self.models:
                if not model.versions:
                    raise InvalidInstance(f"model {model.name!r} lists no version")
        elif self.protocol not in PROTOCOLS:
            raise InvalidInstance(
                f"instance {self.id}: its metadata says protocol={self.protocol[:40]!r}: use "
                f"{', '.join(PROTOCOLS)}"
            )

    def _take_off_labels(self) -> None:
        models = tuple(msgspec.structs.replace(model, _labels=UNSET) for model in self.models)
        msgspec.structs.force_setattr(self, "models", models)
        warn_old_spelling(
            "labels",
            "aliases",
            f"instances of service {self.service!r}",
            "upgrade its workers, and the proxies that list them",
        )

    @cached_property
    def address(self) -> str:
        """`host:port` of the HTTP transport."""
        return format_address(self.host, self.ports["http"])

    @cached_property
    def speaks_tls(self) -> bool:
        """Whether its HTTP transport is HTTPS."""
        return self.meta.get(SCHEME_KEY) == "https"

    @cached_property
    def foreign(self) -> bool:
        """Whether it is not a Fingerpost process: it knows neither boot ids nor leases."""
        return PROTOCOL_KEY in self.meta

    @property
    def protocol(self) -> str:
        """What it speaks: `fingerpost`, or for a foreign worker one of `PROTOCOLS`."""
        return self.meta.get(PROTOCOL_KEY, "fingerpost")

    @property
    def url(self) -> str:
        """`http://host:port`, or `https://host:port`."""
        return f"https://{self.address}" if self.speaks_tls else f"http://{self.address}"

    @cached_property
    def location(self) -> str:
        """What a client without a library is given: `host:port`, or a URL with TLS.

        curl takes `host:port` for plain HTTP.
        """
        return self.url if self.speaks_tls else self.address

    @cached_property
    def target(self) -> str:
        """What clients connect to: `host:port`, or `https://host:port#service`.

        With the service, because a certificate names it. A foreign worker has its plain URL: it has
        no certificate of ours. See `split_target`.
        """
        if self.foreign:
            return self.url
        return f"https://{self.address}#{self.service}" if self.speaks_tls else self.address

    @cached_property
    def load_target(self) -> str:
        """What answers `GET /load`, in the form of `target`; empty where nothing does.

        That is the worker itself; of a foreign one, what listens at its port `load`.
        """
        if not self.foreign:
            return self.target
        port = self.ports.get("load", 0)
        if port == self.ports["http"]:
            return self.target
        return f"http://{format_address(self.host, port)}" if port else ""

    def serves(self, reference: ModelReference) -> bool:
        """Whether one of its models has the version or alias asked for."""
        return any(model.serves(reference) for model in self.models)


def split_target(target: str) -> tuple[str, str | None]:
    """The `host:port` of an `Instance.target`, and the service of one that speaks TLS.

    The service is empty for a foreign worker with TLS, of which the host name is checked.
    """
    scheme, separator, rest = target.partition("://")
    if not separator:
        return target, None
    address, _, service = rest.partition("#")
    return address, service if scheme == "https" else None


def identity_path(path: str, instance: Instance) -> str:
    """The path of a health check, which asks for the process that the entry names too.

    `/health/engine?boot_id=N`: a worker with another boot id answers 410, so that a dead entry does
    not pass because of what has its address now. Without a boot id, as of a foreign worker, it is
    `path` as it is.
    """
    if not instance.boot_id:
        return path
    return f"{path}{'&' if '?' in path else '?'}boot_id={instance.boot_id}"


def is_address(host: str) -> bool:
    """Whether it is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_host(host: str) -> bool:
    """Whether it is a valid IP address, other than 0.0.0.0 and `::`, or a valid host name."""
    try:
        # A zone (fe80::1%eth0) is valid on its own machine only, and may hold any character.
        return "%" not in host and not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return bool(_HOSTNAME.fullmatch(host)) and not _NUMBER.fullmatch(host.rpartition(".")[2])
