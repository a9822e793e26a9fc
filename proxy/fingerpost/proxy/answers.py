"""What the proxy answers: its snapshots in the form of `fingerpost.client.wire`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from fingerpost.basics.printable import one_line
from fingerpost.client.wire import (
    INSTANCE_PATH,
    ResolveAnswer,
    ResolvedInstance,
    ServiceEntry,
    is_foreign,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from yarl import URL

    from fingerpost.registry import Instance, LoadReport, Snapshot
    from fingerpost.security.caller import Caller

__all__ = [
    "RETRY_AFTER_S",
    "foreign_path",
    "identity_prefix",
    "only_allowed_models",
    "resolve_answer",
    "service_entry",
]

# Of a URL (RFC 3986, pchar and `/`), so that it can end no header and no line.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", re.ASCII)

RETRY_AFTER_S: Final = 1.0
"""When a client may ask again that got no worker, in seconds."""

# Of one service. A check's output is up to 4 KB of the worker's own answer.
_MAX_REASONS: Final = 100
_MAX_REASON_LETTERS: Final = 300


def identity_prefix(worker: Instance, probed_boot_id: int = 0) -> str:
    """The path before all others by which only this process serves a request; see `INSTANCE_PATH`.

    Empty for a worker that does not know it: of release 0.1, or a foreign one.

    Args:
        probed_boot_id: of a worker whose entry has none, see `LoadProbes.boot_ids`; 0 if unknown.
    """
    if worker.foreign or (worker.boot_id and is_foreign(worker)):
        return ""
    boot_id = worker.boot_id or probed_boot_id
    return f"{INSTANCE_PATH}{boot_id}/{worker.service}" if boot_id else ""


def foreign_path(worker: Instance, asked: URL | None = None) -> str:
    """The path at which a foreign worker takes images, by its metadata.

    Where that says none, it is the path of the request that is redirected, or else empty.
    """
    path = worker.meta.get("path", "")
    known = path if _PATH.fullmatch(path) else ""
    if asked is None:
        return known
    return (
        f"{known or asked.raw_path}{'?' if asked.raw_query_string else ''}{asked.raw_query_string}"
    )


def resolve_answer(
    snapshot: Snapshot,
    instances: Iterable[Instance],
    reports: Mapping[str, LoadReport],
    *,
    now: float,
    lease_s: float,
    lease: str | msgspec.UnsetType = msgspec.UNSET,
) -> ResolveAnswer:
    """The body of `GET /v1/resolve/{service}`.

    Args:
        snapshot: what is known of the service.
        instances: those of its instances that were asked for.
        reports: the last load report of each instance, by id.
        now: the time, in seconds of the monotonic clock.
        lease_s: see `ProxyConfig`.
        lease: the signed lease for the service; unset where none are signed.
    """
    return ResolveAnswer(
        service=snapshot.service,
        index=snapshot.index,
        age_s=round(snapshot.age_s(now), 3),
        lease_s=lease_s,
        lease=lease,
        instances=tuple(ResolvedInstance.of(each, reports.get(each.id)) for each in instances),
        retained=snapshot.retained,
        from_disk=snapshot.from_disk,
    )


def only_allowed_models(caller: Caller, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
    """The instances without the models that a caller may not use; as they are where it may all."""
    allowed = caller.rights.models
    if allowed is None:
        return instances
    return tuple(
        msgspec.structs.replace(
            each, models=tuple(model for model in each.models if model.name in allowed)
        )
        for each in instances
    )


def service_entry(snapshot: Snapshot, now: float) -> ServiceEntry:
    """One service in the body of `GET /v1/services`; `now` in seconds of the monotonic clock."""
    models = [
        model
        for instance in snapshot.instances
        for model in instance.models
        if model.name == snapshot.service
    ]
    return ServiceEntry(
        name=snapshot.service,
        instances=len(snapshot.instances),
        versions=tuple(
            sorted({each for model in models for each in model.versions}, key=int, reverse=True)
        ),
        aliases={alias: each for model in models for alias, each in model.aliases.items()},
        age_s=round(snapshot.age_s(now), 3),
        from_disk=snapshot.from_disk,
        withdrawn=snapshot.withdrawn,
        failing=_reasons(snapshot.failing),
        rejected=_reasons(snapshot.rejected) or UNSET,
        foreign=sum(1 for each in snapshot.instances if each.foreign) or UNSET,
    )


def _reasons(of: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {id_: one_line(why, _MAX_REASON_LETTERS) for id_, why in of[:_MAX_REASONS]}
