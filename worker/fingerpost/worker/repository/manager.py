"""The interface between the models of a worker and the HTTP handlers that serve them.

A handler acquires a version by name; the version stays loaded until the handler releases it. The
manager decides what is loaded and unloaded, and when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fingerpost.worker.models.tasks import Task

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fingerpost.registry.instance import ModelInfo, ModelReference
    from fingerpost.worker.engine.engine import Engine
    from fingerpost.worker.engine.outcome import Labels
    from fingerpost.worker.models.status import VersionStatus
    from fingerpost.worker.tasks.readers import RowReader

__all__ = ["ModelManager", "ServedVersion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """A version that is loaded and warmed up.

    Attributes:
        model, version: its name and its number.
        labels: the names of the classes, in the order of the scores.
        own_labels: those that the model itself has, for when its files have none.
        engine: runs it.
        digest: of its files, where its signature was verified; else empty.
        task: what it answers.
        reader: makes the answers of its rows; None for a classifier, and where the engine makes
            them.
    """

    model: str
    version: str
    labels: Labels
    engine: Engine
    own_labels: tuple[str, ...] = ()
    digest: str = ""
    task: Task = Task.CLASSIFICATION
    reader: RowReader | None = None

    @property
    def width(self) -> int:
        """How many numbers the model gives for an image."""
        return len(self.labels) if self.reader is None else self.reader.width


class ModelManager(Protocol):
    """The models that a worker serves."""

    @property
    def default(self) -> str:
        """The model for `POST /`, whose path names none."""
        ...

    def models(self) -> tuple[ModelInfo, ...]:
        """Models that can be asked for now, with aliases and loaded versions, newest first."""
        ...

    def acquire(self, reference: ModelReference) -> AbstractContextManager[ServedVersion]:
        """The version that `reference` means; it is not unloaded inside the `with` block.

        A reference without a version or alias means the newest version that the policy chooses.

        Raises:
            UnknownModel: it is not served; raised here or when the block is entered. The message
                lists what is served.
        """
        ...

    def model_names(self) -> tuple[str, ...]:
        """The names of all models, also of those of which no version could be loaded."""
        ...

    def statuses(self, model: str) -> tuple[VersionStatus, ...]:
        """The state of every known version of a model, newest first. Raises `UnknownModel`."""
        ...

    def engines(self) -> tuple[Engine, ...]:
        """The engines of all loaded versions, for load, health and metrics."""
        ...
