"""Foreign workers: entries of a registry that are not Fingerpost processes. Pure.

An entry without Fingerpost's metadata is a worker all the same: its service is its model, whose
version is not known unless its metadata says so (`version`), and it sends no load reports. Its own
metadata is kept, and gets `protocol=form` where it does not say what it speaks. That key makes the
instance a foreign one for all readers, because every registry and every proxy passes it on.

**Which are used.** Anybody who may write to the registry can add such an entry, and it proves
nothing of itself. So where anything proves who a worker is (signed registrations, certificates of
workers, signed leases, callers), foreign workers are used only of the services that the reader's
operator names (`RegistryConfig.foreign_services`); elsewhere all are. The name is the reader's, so
that the registry cannot give it. An entry that claims to be Fingerpost's is held to all rules in
any case, and a foreign worker that a registration key has signed needs no name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import InvalidInstance
from fingerpost.registry.instance import PROTOCOL_KEY, Instance, ModelInfo, address_in_id
from fingerpost.registry.names import check_service, check_version

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FOREIGN_KEYS", "decode_plain", "foreign_instance", "foreign_models"]

# What a foreign worker's metadata may say to clients: see docs/foreign.md.
FOREIGN_KEYS: Final = frozenset(
    {
        *(PROTOCOL_KEY, "path", "field", "model", "version", "labels", "scores"),
        *("size", "layout", "dtype", "scale", "mean", "std"),
        *("input", "output", "signature", "encoding"),
        *("task", "detection", "box_format", "box_unit", "first_class"),
    }
)
_DEFAULT: Final = "form"
_NOT_IN_IDS: Final = re.compile(r"[^A-Za-z0-9._-]+|\.{2,}", re.ASCII)
_ID_LETTERS: Final = 60
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]+):([0-9]{1,5})", re.ASCII)


def foreign_models(service: str, meta: Mapping[str, str]) -> tuple[ModelInfo, ...]:
    """The one model of a foreign worker, with its version if its metadata names one.

    Raises:
        InvalidName: `version` is not a whole number.
    """
    version = meta.get("version", "")
    return (ModelInfo(name=service, versions=(check_version(version),) if version else ()),)


def foreign_instance(
    service: str,
    *,
    host: str,
    port: int,
    entry_id: str = "",
    meta: Mapping[str, str] | None = None,
    weight: int = 1,
) -> Instance:
    """The instance of an entry without Fingerpost's metadata.

    Its id is that of the entry and its address, because an entry's own id is often the service's
    name, on every machine.

    Raises:
        InvalidInstance, InvalidName: the address, port, protocol or version is not valid.
    """
    meta = dict(meta or {})
    meta.setdefault(PROTOCOL_KEY, _DEFAULT)
    name = _NOT_IN_IDS.sub("-", entry_id)[:_ID_LETTERS].strip("-_.") or service
    where = _NOT_IN_IDS.sub("-", address_in_id(host[:_ID_LETTERS], port))
    return Instance(
        id=name if where in name else f"{name}-{where}",
        service=service,
        host=host,
        ports={"http": port},
        models=foreign_models(service, meta),
        weight=weight,
        meta=meta,
    )


class _Curator(msgspec.Struct):
    """What Apache Curator's service discovery writes; other fields are not read."""

    address: str
    port: int
    id: str = ""
    payload: dict[str, str] | None = None


class _AnyInstance(msgspec.Struct):
    models: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def decode_plain(data: bytes, entry_id: str, service: str) -> Instance | None:
    """The foreign worker in an entry's text: `HOST:PORT`, or JSON with `address` and `port`.

    None where it is neither, or is Fingerpost's own form. The JSON is that of Apache Curator's
    service discovery; a `payload` of texts is its metadata. The instance has the entry's id.

    Raises:
        InvalidInstance, InvalidName: it is one, and not valid.
    """
    check_service(service)
    text = data.decode("utf-8", "replace").strip()
    if match := _ADDRESS.fullmatch(text):
        host, port = match[1].strip("[]"), int(match[2])
        plain = foreign_instance(service, host=host, port=port)
        return msgspec.structs.replace(plain, id=entry_id)
    try:
        if msgspec.json.decode(data, type=_AnyInstance).models is not msgspec.UNSET:
            return None
        found = msgspec.json.decode(data, type=_Curator)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not found.address:
        raise InvalidInstance(f"entry {entry_id[:128]!r} has no address")
    plain = foreign_instance(service, host=found.address, port=found.port, meta=found.payload)
    return msgspec.structs.replace(plain, id=entry_id)
