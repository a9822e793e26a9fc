"""What travels between client, proxy and worker, as both ends read and write it.

Errors travel as `fingerpost.registry.FingerpostError.to_json` writes them, and load reports in the
header `endpoint-load-metrics` (`fingerpost.registry.LoadReport.to_header`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.registry import Instance, LoadReport, ModelInfo, Snapshot
from fingerpost.registry.old_spellings import warn_old_spelling

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError

__all__ = [
    "DEADLINE_HEADER",
    "INDEX_HEADER",
    "WORKER_HEADER",
    "ClassifyAnswer",
    "ErrorBody",
    "ImageAnswer",
    "ResolveAnswer",
    "ResolvedInstance",
    "ServiceEntry",
    "ServicesAnswer",
    "TimingsMs",
]

# Milliseconds left when the request was sent; never a wall-clock time, so that clocks may differ.
DEADLINE_HEADER: Final = "Fingerpost-Deadline-Ms"
# The snapshot's index, on every answer to a resolve, errors too, for the next `index=`.
INDEX_HEADER: Final = "Fingerpost-Index"
# On an answer through the relay: the id and the `host:port` of the worker whose answer it is.
WORKER_HEADER: Final = "Fingerpost-Worker"


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The inside of `{"error": ...}`; `retryable` says whether another worker may succeed."""

    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: FingerpostError) -> ErrorBody:
        """The body for an error, for an answer that carries other things too."""
        return cls(code=error.code, message=error.message, retryable=error.retryable)


class TimingsMs(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds an image spent in the worker: decoding, waiting for its batch, inference."""

    decode: float
    queue: float
    inference: float


class ImageAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome for one image: either `predictions` (label and score, best first) or `error`.

    `name` is the multipart field's file name, or `data` where there is none.
    """

    name: str
    predictions: tuple[tuple[str, float], ...] = ()
    error: ErrorBody | None = None
    timings_ms: TimingsMs | None = None


class ClassifyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/classify/{model}`: one result for each image, in the order sent.

    A request with one image that fails is answered by that error alone, with its HTTP status.
    """

    model: str
    version: str
    results: tuple[ImageAnswer, ...]


class ResolvedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as the proxy tells of it, with its last load report where one is known."""

    id: str
    host: str
    ports: Mapping[str, int]
    models: tuple[ModelInfo, ...]
    address: str
    weight: int = 1
    zone: str = ""
    boot_id: int = 0
    meta: Mapping[str, str] = {}
    load: LoadReport | None = None

    @classmethod
    def of(cls, instance: Instance, load: LoadReport | None = None) -> ResolvedInstance:
        """What the proxy tells of a registered instance."""
        return cls(
            id=instance.id,
            host=instance.host,
            ports=instance.ports,
            models=_with_labels(instance.models),
            address=instance.address,
            weight=instance.weight,
            zone=instance.zone,
            boot_id=instance.boot_id,
            meta=instance.meta,
            load=load,
        )

    def instance(self, service: str) -> Instance:
        """The registered instance behind it. Raises `InvalidInstance` where it makes no sense."""
        return Instance(
            id=self.id,
            service=service,
            host=self.host,
            ports=self.ports,
            models=self.models,
            weight=self.weight,
            zone=self.zone,
            boot_id=self.boot_id,
            meta=self.meta,
        )


def _with_labels(models: tuple[ModelInfo, ...]) -> tuple[ModelInfo, ...]:
    """The models, their aliases written as `labels` too: what clients of release 0.1.0 read.

    For one more release, because proxies are upgraded before clients.
    """
    if not any(model.aliases for model in models):
        return models
    both = tuple(msgspec.structs.replace(model) for model in models)
    for model in both:
        if model.aliases:
            msgspec.structs.force_setattr(model, "_labels", model.aliases)
    return both


class ResolveAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/resolve/{service}`.

    `index` is to be sent with the next `index=`; `age_s` is how long ago the registry confirmed
    the view; `lease_s` how many seconds it may be used without asking again. `retained` names the
    instances that the registry no longer lists, but that answer when asked themselves. `kept`
    repeats it under the name that release 0.1.0 has for it, for one more release. `from_disk`
    says that this proxy has not reached the registry since it started.
    """

    service: str
    index: int
    age_s: float
    lease_s: float
    instances: tuple[ResolvedInstance, ...]
    retained: tuple[str, ...] = ()
    from_disk: bool = False
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kept and not self.retained:
            warn_old_spelling("kept", "retained", "a proxy's answer", "upgrade the proxies")
            msgspec.structs.force_setattr(self, "retained", self.kept)
        msgspec.structs.force_setattr(self, "kept", self.retained)

    def snapshot(self, now: float) -> Snapshot:
        """The snapshot it was made from, its age carried over to the local clock's `now`."""
        return Snapshot(
            service=self.service,
            instances=tuple(each.instance(self.service) for each in self.instances),
            known=True,
            index=self.index,
            taken_at=now - self.age_s,
            retained=self.retained,
            from_disk=self.from_disk,
        )


class ServiceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One service in `GET /v1/services`: versions newest first, alias to version, and its count.

    `labels` repeats `aliases` under the name that release 0.1.0 has for it, for one more release:
    a client of that release requires it, and a proxy of that release writes only it.
    """

    name: str
    instances: int
    versions: tuple[str, ...]
    age_s: float
    from_disk: bool = False
    aliases: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        if self.labels and not self.aliases:
            warn_old_spelling(
                "labels", "aliases", "a proxy's list of services", "upgrade the proxies"
            )
            msgspec.structs.force_setattr(self, "aliases", self.labels)
        msgspec.structs.force_setattr(self, "labels", self.aliases)


class ServicesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/services`."""

    services: tuple[ServiceEntry, ...]
