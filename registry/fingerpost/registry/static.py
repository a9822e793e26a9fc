"""A list of workers instead of a registry: `static://host:port,host:port`."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fingerpost.basics.renames import renamed_arguments
from fingerpost.errors import ConfigurationError, InvalidInstance, InvalidName
from fingerpost.registry.address_policy import RejectedEntries
from fingerpost.registry.documents import check_document
from fingerpost.registry.foreign import FOREIGN_KEYS
from fingerpost.registry.instance import (
    PROTOCOL_KEY,
    SCHEME_KEY,
    Instance,
    ModelInfo,
    ModelReference,
    format_address,
)
from fingerpost.registry.names import check_id, check_service
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watching.rules import WatchConfig
from fingerpost.registry.watching.shared import WatchingRegistry
from fingerpost.registry.watching.watch import Watch

if TYPE_CHECKING:
    from fingerpost.registry.base import Registration

__all__ = ["StaticRegistry"]

_FORM: Final = (
    "static://HOST:PORT,HOST:PORT, optionally with ?model=NAME or ?model=NAME@VERSION, "
    "&scheme=https of workers that speak TLS, and &protocol=PROTOCOL of foreign ones"
)
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):([0-9]{1,5})", re.ASCII)
MAX_WATCHES: Final = 1000


class StaticRegistry(WatchingRegistry):
    """`Registry` over a fixed list: for first steps, tests, and clusters that never change.

    Whatever service is asked for, all workers listed are its instances; with `?model=`, only that
    service is known. The workers are not checked, so the list never shrinks: clients leave out
    those that fail. Nothing can be registered or drained. The age of a snapshot is always 0, and a
    watch has one view, which never changes.

    An instance's id is `static-HOST-PORT`. Its model is named like the service, with version `1`;
    with `?model=flowers@3` it has version `3`, for clients that ask for `flowers@3`. With
    `?protocol=form` they are foreign workers, and the other options that `foreign.FOREIGN_KEYS`
    names are their metadata; a version is known then only if it is given.

    Args:
        url: `static://HOST:PORT,HOST:PORT`, an IPv6 host in brackets; `?model=NAME[@VERSION]`;
            `?scheme=https` where all of them speak TLS; `?protocol=` of foreign workers.
        watch_config: see `WatchConfig`.

    Raises:
        ConfigurationError: not of that form, an entry twice, or an address that is not valid.
    """

    @renamed_arguments("StaticRegistry", watch="watch_config")
    def __init__(
        self,
        url: str,
        *,
        watch_config: WatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        scheme, separator, rest = url.partition("://")
        servers, _, query = rest.partition("?")
        servers = servers.removesuffix("/")
        if scheme.lower() != "static" or not separator or not servers:
            raise ConfigurationError(f"registry URL {url!r}: expected {_FORM}")
        self._model, self._meta = _options(query, url)
        self._addresses = [_address(each, url) for each in servers.split(",")]
        for number, each in enumerate(self._addresses):
            if each in self._addresses[:number]:
                raise ConfigurationError(
                    f"registry URL {url!r}: {format_address(*each)} is listed twice; leave one out"
                )
        self._url = url
        self._clock = clock
        self._watch_config = watch_config or WatchConfig()
        super().__init__(max_watches=MAX_WATCHES)
        # Always empty: a list made by hand is not checked.
        self.rejected_entries = RejectedEntries()
        self._instances(self._model.model if self._model else "any")  # rejects bad hosts and ports

    @property
    def url(self) -> str:
        """The list as given."""
        return self._url

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> Registration:
        """Not possible with a fixed list. Raises `ConfigurationError`."""
        raise ConfigurationError(
            f"cannot register {instance.id}: {self._url} is a fixed list; add "
            f"{instance.address} to it, or use a registry such as consul://127.0.0.1:8500"
        )

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Not possible with a fixed list. Raises `ConfigurationError`."""
        raise ConfigurationError(
            f"cannot drain {instance_id}: {self._url} is a fixed list; start its readers with a "
            "list without it"
        )

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Nothing is registered, so nothing is removed."""
        return ()

    async def list(self, service: str) -> Snapshot:
        """All workers listed, as instances of `service`. See `Registry.list`."""
        check_service(service)
        known = self._model is None or service == self._model.model
        return Snapshot(
            service=service,
            instances=self._instances(service) if known else (),
            known=known,
            index=1,
            taken_at=self._clock(),
        )

    async def catalog(self) -> Catalog:
        """The service of `?model=`; without it none, because every name is a service."""
        services = (self._model.model,) if self._model else ()
        return Catalog(services=services, index=1, taken_at=self._clock())

    async def document(self, name: str) -> bytes | None:
        """A fixed list has no documents."""
        check_document(name)
        return None

    async def publish(self, name: str, content: bytes) -> None:
        """Not possible with a fixed list. Raises `ConfigurationError`."""
        raise ConfigurationError(
            f"cannot publish {name!r}: {self._url} is a fixed list; give it to the workers as a "
            "file, or use a registry such as consul://127.0.0.1:8500"
        )

    async def aclose(self) -> None:
        """End all watches."""
        await self._close_watches()

    def _new_catalog_watch(self) -> Watch[Catalog]:
        async def poll(index: int, wait_s: float) -> tuple[Catalog, int]:
            await asyncio.sleep(wait_s if index else 0)
            return await self.catalog(), 1

        return Watch(poll, name=f"the catalog of {self._url}", config=self._watch_config)

    def _new_watch(self, service: str) -> Watch[Snapshot]:
        async def poll(index: int, wait_s: float) -> tuple[Snapshot, int]:
            # Nothing changes; it returns only to keep the view's age low.
            await asyncio.sleep(wait_s if index else 0)
            return await self.list(service), 1

        return Watch(poll, name=f"service {service} of {self._url}", config=self._watch_config)

    def _instances(self, service: str) -> tuple[Instance, ...]:
        version = self._model.version if self._model else None
        try:
            if PROTOCOL_KEY in self._meta:
                versions = () if version is None else (version,)
            else:
                versions = (version or "1",)
            model = ModelInfo(name=service, versions=versions)
            instances = [
                Instance(
                    id=check_id(f"static-{host.replace(':', '-').strip('-')}-{port}"),
                    service=service,
                    host=host,
                    ports={"http": port},
                    models=(model,),
                    meta=self._meta,
                )
                for host, port in self._addresses
            ]
        except (InvalidInstance, InvalidName) as error:
            raise ConfigurationError(f"registry URL {self._url!r}: {error}") from error
        return tuple(sorted(instances, key=lambda each: each.id))


def _options(query: str, url: str) -> tuple[ModelReference | None, dict[str, str]]:
    """The model that the workers serve, if it is named, and their metadata."""
    if not query:
        return None, {}
    try:
        given = urllib.parse.parse_qsl(query, strict_parsing=True)
        options = dict(given)
        scheme = options.pop(SCHEME_KEY, "http")
        if scheme not in ("http", "https"):
            raise ValueError(f"scheme={scheme!r}: use http or https")
        model = options.pop("model", None)
        foreign = options if PROTOCOL_KEY in options and options.keys() <= FOREIGN_KEYS else {}
        if options.keys() != foreign.keys() or len(dict(given)) != len(given):
            raise ValueError(
                "the only options are one ?model=NAME or ?model=NAME@VERSION, one ?scheme=https, "
                "and ?protocol=PROTOCOL with what it needs"
            )
        reference = None if model is None else ModelReference.parse(model)
        if reference is not None and reference.alias is not None:
            raise ValueError(f"{reference} names an alias; give a version, such as @3")
    except (ValueError, InvalidName) as error:
        raise ConfigurationError(f"registry URL {url!r}: {error}") from error
    return reference, foreign | ({SCHEME_KEY: "https"} if scheme == "https" else {})


def _address(text: str, url: str) -> tuple[str, int]:
    match = _SERVER.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"registry URL {url!r}: {text!r} is not HOST:PORT; expected {_FORM}"
        )
    return match[1].strip("[]"), int(match[2])
