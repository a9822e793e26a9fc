"""What front ends and the model's process say to each other.

Batches go over a socket of packets for each thread that runs a model, so that an answer takes two
changes of threads and none of event loops. The rest goes over one stream of JSON lines for each
front end: see `Order` and `Event`.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from fingerpost.errors import FingerpostError
from fingerpost.worker.backends.raised import type_and_text
from fingerpost.worker.front_ends.batch_memory import Run
from fingerpost.worker.models.private_copy import PrivateCopy

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from fingerpost.worker.backends.base import ImageInput
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.sources import ModelSource

__all__ = [
    "MAX_LINE",
    "MAX_PACKET",
    "Batch",
    "Description",
    "Event",
    "Load",
    "ModelRaised",
    "Order",
    "Scores",
    "Served",
    "Setup",
    "dump_setup",
    "error_bytes",
    "raise_error",
]

# The longest line: the metrics of a process.
MAX_LINE = 1 << 26
# The longest packet: an error, or a batch of as many kinds of images as it has images.
MAX_PACKET = 1 << 17


class ModelRaised(Exception):
    """What a model raised in its process; its text is that of the error."""


class Load(msgspec.Struct, frozen=True, array_like=True):
    """A front end wants a version: its descriptors come with the answer.

    Attributes:
        model, version: what to load.
    """

    model: str
    version: int


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """A front end has written a batch into its memory."""

    runs: list[Run]


class Scores(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a batch: the shape of its scores, or what the model raised (`error_bytes`)."""

    shape: list[int] = []
    error: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a front end has to know of a loaded model.

    Attributes:
        framework, platform, device, input, signature: see `Backend` and `Engine`.
        labels, max_batch: see `SelfDescribing`; None where the model is not one.
    """

    framework: str
    platform: str
    device: str
    input: ImageInput
    signature: str
    labels: tuple[str, ...] | None
    max_batch: int | None


class Served(msgspec.Struct, frozen=True):
    """A model that a front end serves: see `ModelInfo`, and what is registered with it."""

    name: str
    versions: list[str]
    aliases: dict[str, str]
    meta: dict[str, str]


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """From the first process to a front end.

    Attributes:
        what: `state`, `refuse` (new requests), `report` (the own metrics are asked for), `metrics`
            (those of all) or `stop`.
        state: the worker's state.
        text: of `metrics`, or why requests are refused.
        timeout_s: of `refuse`: the longest wait for requests in flight.
    """

    what: str
    state: int = 0
    text: str = ""
    timeout_s: float = 0.0


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """From a front end to the first process.

    Attributes:
        what: `serving` (it listens, or serves other versions), `failed` (it cannot start), `idle`
            (after `refuse`: nothing is in flight), `report` (the own metrics) or `metrics` (it asks
            for those of all).
        models: of `serving`.
        text: of `failed` and `report`.
    """

    what: str
    models: list[Served] = []
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a front end is started with.

    Attributes:
        number: which one it is, from 0.
        count: how many there are.
        config: its settings: see `config_of_one`.
        port: the port of all.
        boot_id: the worker's.
        source: where the models are; the first process loads them.
        prepare: called before all else, such as to start the log.
    """

    number: int
    count: int
    config: WorkerConfig
    port: int
    boot_id: int
    source: ModelSource
    prepare: Callable[[], object] | None = field(default=None)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """Leave the copies of verified files to the process that loads them."""
        return (_nothing, ()) if isinstance(obj, PrivateCopy) else NotImplemented


def dump_setup(setup: Setup, sink: io.BufferedIOBase) -> None:
    """Write what a front end is started with."""
    _Pickler(sink).dump(setup)


def _nothing() -> None:
    return None


def error_bytes(error: BaseException) -> bytes:
    """An error for a front end; of one that is not ours only its text, as `failure_of` has it."""
    if isinstance(error, FingerpostError):
        return pickle.dumps(error.with_traceback(None))
    plain = isinstance(error, Exception) and str(error)
    return pickle.dumps(ModelRaised(str(error)[:300] if plain else type_and_text(error)))


def raise_error(data: bytes) -> None:
    """Raise an error of `error_bytes`."""
    raise pickle.loads(data)  # noqa: S301 - of the process that started this one
