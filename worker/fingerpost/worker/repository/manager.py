"""The models that a worker serves now, and what each of their versions is doing.

Handlers ask the host by name and get a version that stays loaded until they let it go; who loads
and unloads is behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fingerpost.errors import UnknownModel
from fingerpost.registry.instance import ModelInfo, ModelReference
from fingerpost.worker.models.status import VersionState, VersionStatus

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fingerpost.worker.engine.engine import Engine

__all__ = ["ModelHost", "ServedVersion", "SingleModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """A version that is loaded and warm. `labels` are in the order of the scores."""

    model: str
    version: str
    labels: tuple[str, ...]
    engine: Engine


class ModelHost(Protocol):
    """See the module."""

    @property
    def default(self) -> str:
        """The model that `POST /`, which names none, asks for."""

    def models(self) -> tuple[ModelInfo, ...]:
        """What can be asked for now: models with their warm versions, newest first, and aliases."""

    def use(self, reference: ModelReference) -> AbstractContextManager[ServedVersion]:
        """The version asked for, held against unloading within the `with` block.

        Without version or alias it is the newest that the policy chooses. Raises `UnknownModel` on
        entering, or before, where it is not served; the message says what is.
        """

    def known(self) -> tuple[str, ...]:
        """The names of all models, those of which no version could be loaded among them."""

    def statuses(self, model: str) -> tuple[VersionStatus, ...]:
        """Every version known of, newest first. Raises `UnknownModel`."""

    def engines(self) -> tuple[Engine, ...]:
        """All engines at work, for load, health and metrics."""


class SingleModel:
    """A host of one version that never changes."""

    def __init__(self, served: ServedVersion) -> None:
        self._served = served
        self._info = ModelInfo(name=served.model, versions=(served.version,))

    @property
    def default(self) -> str:
        """See `ModelHost`, as for all that follow."""
        return self._served.model

    def models(self) -> tuple[ModelInfo, ...]:
        """One."""
        return (self._info,)

    @contextmanager
    def use(self, reference: ModelReference) -> Iterator[ServedVersion]:
        """The one, if it is meant."""
        if not self._info.serves(reference):
            raise UnknownModel(
                f"{str(reference)!r} is not served here; this worker has "
                f"{self._served.model}@{self._served.version}"
            )
        yield self._served

    def known(self) -> tuple[str, ...]:
        """One."""
        return (self.default,)

    def statuses(self, model: str) -> tuple[VersionStatus, ...]:
        """Available."""
        if model != self._served.model:
            raise UnknownModel(f"{model!r} is not served here; this worker has {self.default}")
        return (VersionStatus(version=self._served.version, state=VersionState.AVAILABLE),)

    def engines(self) -> tuple[Engine, ...]:
        """One."""
        return (self._served.engine,)
