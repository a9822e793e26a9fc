"""The messages between client, proxy and worker, as both ends read and write them.

Errors are written by `fingerpost.errors.FingerpostError.to_json`, and load reports, in the header
`endpoint-load-metrics`, by `fingerpost.registry.LoadReport.to_header`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from fingerpost.registry import Instance, LoadReport, ModelInfo, Snapshot
from fingerpost.registry.old_spellings import warn_old_spelling

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError

__all__ = [
    "BOOT_ID_HEADER",
    "CLASS_HEADER",
    "DEADLINE_HEADER",
    "FOREIGN_RELAY_PATH",
    "FRAME_HEADER",
    "HOLD_HEADER",
    "INDEX_HEADER",
    "INFER_RELAY_PATH",
    "INSTANCE_PATH",
    "LEASE_PATH",
    "MODEL_HEADER",
    "RATES",
    "RELAY_PATH",
    "SUSPECT_HEADER",
    "WAITED_HEADER",
    "WORKER_HEADER",
    "AnswerHead",
    "ClassifyAnswer",
    "ErrorBody",
    "ImageAnswer",
    "Prediction",
    "ReceivedAnswer",
    "ReceivedImage",
    "ResolveAnswer",
    "ResolvedInstance",
    "ServiceEntry",
    "ServicesAnswer",
    "TimingsMs",
    "is_foreign",
]

# The boot id of the process that the request is meant for, decimal. A worker with another one
# refuses the request by its headers, with 421 `misdirected`: its address was another worker's.
BOOT_ID_HEADER: Final = "Fingerpost-Boot-Id"
# The model that `POST /` means, whose path names none.
MODEL_HEADER: Final = "Fingerpost-Model"
# `/instance/BOOT_ID/MODEL` before a path means the same as these two headers. A proxy's `GET /`
# answers with it, for clients that keep a URL and no header, such as curl.
INSTANCE_PATH: Final = "/instance/"
# `/lease/TOKEN` before all that is the same as `Authorization: Bearer TOKEN`: a signed lease, see
# `fingerpost.security.leases`. In URLs of a proxy's `GET /` and of its redirects.
LEASE_PATH: Final = "/lease/"
# The priority class of the images, such as `batch`; without it they are of the first class that
# their tenant may use.
CLASS_HEADER: Final = "Fingerpost-Class"
# The limits of a tenant on its rate, as the error of a refusal names them: its images wait,
# whatever else the worker has to do.
RATES: Final = frozenset({"bytes_per_s", "images_per_s"})
# The milliseconds that were left when the request was sent. Not a time of day, as clocks differ.
DEADLINE_HEADER: Final = "Fingerpost-Deadline-Ms"
# The milliseconds since the client began with the image, where overloaded workers refused it or
# older ones: see `OldestFirst` of the worker.
WAITED_HEADER: Final = "Fingerpost-Waited-Ms"
# `1` on an image on which a worker fell silent. A worker takes such images one at a time, and
# answers `102 Processing` before it begins: only from then on may it be this image that stops it.
SUSPECT_HEADER: Final = "Fingerpost-Suspect"
# The snapshot's index for the next `index=`, on every answer to a resolve, including errors.
INDEX_HEADER: Final = "Fingerpost-Index"
# On a 503 `no_worker` to a resolve: for how many whole seconds this proxy holds a lookup of a model
# without a worker, until the first one is up. Absent where it does not.
HOLD_HEADER: Final = "Fingerpost-Hold-S"
# In place of a body, of a request at the worker's Unix socket: a decoded frame, whose memory was
# sent to its socket for frames before. `TOKEN DATATYPE HEIGHTxWIDTHxCHANNELS`.
FRAME_HEADER: Final = "Fingerpost-Frame"
# On an answer through the relay: id and `host:port` of the worker that answered.
WORKER_HEADER: Final = "Fingerpost-Worker"
# Where a relaying proxy takes images: for classifiers, for models of any task, and for foreign
# workers, in the protocol of the one that `?worker=ID` names.
RELAY_PATH: Final = "/v1/relay/"
INFER_RELAY_PATH: Final = "/v1/relay/infer/"
FOREIGN_RELAY_PATH: Final = "/v1/relay/foreign/"


# Ranges that a peer's figures must keep, so that no sum of them is infinite or negative.
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]
BootId = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
LeaseText = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.-]{1,2048}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


def is_foreign(instance: Instance) -> bool:
    """Whether an instance knows nothing that release 0.2 added to the protocol.

    It is a worker of release 0.1, or another server.
    """
    return instance.meta.get("fingerpost", "0.1.").startswith("0.1.")


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The value in `{"error": ...}`; `retryable` says whether another worker may succeed."""

    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: FingerpostError) -> ErrorBody:
        """The body for an error, for an answer that carries other things too."""
        return cls(code=error.code, message=error.message, retryable=error.retryable)


class TimingsMs(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds that an image spent in the worker: decoding, waiting for a batch, inference."""

    decode: Milliseconds
    queue: Milliseconds
    inference: Milliseconds


class Prediction(NamedTuple):
    """A label that a model predicts for an image, and its score from 0 to 1."""

    label: str
    score: float


class ImageAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome for one image: either `predictions` (label and score, best first) or `error`.

    `name` is the file name of the multipart field, or `data` if it has none.
    """

    name: str
    predictions: tuple[tuple[str, float], ...] = ()
    error: ErrorBody | None = None
    timings_ms: TimingsMs | None = None


class ClassifyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `POST /v1/classify/{model}`: one result for each image, in the order sent.

    If the only image of a request fails, the answer is that error alone, with its HTTP status.
    `digest` is that of the model's files, for a request with `?digest=1`.
    """

    model: str
    version: str
    results: tuple[ImageAnswer, ...]
    digest: str | UnsetType = UNSET


class ReceivedImage(ImageAnswer, frozen=True, kw_only=True):
    """An `ImageAnswer` as the client reads it, with `Prediction`s; it encodes to the same JSON."""

    predictions: tuple[Prediction, ...] = ()


class ReceivedAnswer(ClassifyAnswer, frozen=True, kw_only=True):
    """A `ClassifyAnswer` as the client reads it; only an inference has a `typed` result."""

    typed: ClassVar[None] = None
    results: tuple[ReceivedImage, ...]


class ResolvedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance in the proxy's answer, with its last load report if there is one."""

    id: str
    host: str
    ports: Mapping[str, int]
    models: tuple[ModelInfo, ...]
    address: str
    weight: int = 1
    zone: str = ""
    boot_id: BootId = 0
    meta: Mapping[str, str] = {}
    load: LoadReport | None = None
    signature: str | UnsetType = UNSET

    @classmethod
    def of(cls, instance: Instance, load: LoadReport | None = None) -> ResolvedInstance:
        """A registered instance as the proxy answers it."""
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
            signature=instance.signature,
        )

    def instance(self, service: str) -> Instance:
        """The registered instance. Raises `InvalidInstance` if a value is not valid."""
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
            signature=self.signature,
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


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `GET /v1/resolve/{service}` without its instances: see `ResolveAnswer`."""

    service: str
    index: Count
    age_s: Seconds
    lease_s: Seconds
    lease: LeaseText | msgspec.UnsetType = msgspec.UNSET
    retained: tuple[str, ...] = ()
    from_disk: bool = False
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kept and not self.retained:
            warn_old_spelling("kept", "retained", "a proxy's answer", "upgrade the proxies")
            msgspec.structs.force_setattr(self, "retained", self.kept)
        msgspec.structs.force_setattr(self, "kept", self.retained)


class ResolveAnswer(AnswerHead, frozen=True, kw_only=True):
    """The answer to `GET /v1/resolve/{service}`.

    Attributes:
        index: to be sent as the next request's `index=`.
        age_s: how many seconds ago the registry confirmed the snapshot.
        lease_s: for how many seconds the answer may be used without asking again.
        lease: the signed right to send images to this service, for `Authorization: Bearer`; not
            there where the proxy signs none.
        retained: ids of the instances that the registry no longer lists, but that still answer.
        from_disk: whether this proxy has not reached the registry since it started.
        kept: the same as `retained`, under its name in release 0.1.0, for one more release.
    """

    instances: tuple[ResolvedInstance, ...]

    def snapshot(self, now: float) -> Snapshot:
        """The snapshot; `now` is the local monotonic clock, to which its age is converted."""
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
    """One service in the answer to `GET /v1/services`.

    Attributes:
        instances: how many there are.
        versions: newest first.
        aliases: from an alias to its version.
        age_s: how many seconds ago the registry confirmed the snapshot.
        from_disk: whether this proxy has not reached the registry since it started.
        withdrawn: ids of its workers that are drained or not well.
        failing: why the registry's check of a worker fails, by its id: the address and the check's
            output, for people. Of 100 workers at most, 300 characters each, without control
            characters. Proxies before release 0.2 do not have it.
        rejected: why an entry is left out, by its id, in the same form; only where one is.
        foreign: how many of the instances are not Fingerpost workers; only where one is not.
        labels: the same as `aliases`, under their name in release 0.1.0, for one more release: a
            client of that release requires it, and a proxy of that release writes only it.
    """

    name: str
    instances: int
    versions: tuple[str, ...]
    age_s: float
    from_disk: bool = False
    withdrawn: tuple[str, ...] = ()
    failing: Mapping[str, str] = {}
    aliases: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    rejected: Mapping[str, str] | UnsetType = UNSET
    foreign: int | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.labels and not self.aliases:
            warn_old_spelling(
                "labels", "aliases", "a proxy's list of services", "upgrade the proxies"
            )
            msgspec.structs.force_setattr(self, "aliases", self.labels)
        msgspec.structs.force_setattr(self, "labels", self.aliases)


class ServicesAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to `GET /v1/services`.

    Attributes:
        services: those that the caller may use.
        problems: what is wrong with the proxy's policy of callers, for callers with a role.
    """

    services: tuple[ServiceEntry, ...]
    problems: tuple[str, ...] = ()
