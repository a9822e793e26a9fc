"""A model manager of one version that never changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fingerpost.errors import UnknownModel
from fingerpost.registry.instance import ModelInfo, ModelReference
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.models.status import VersionState, VersionStatus
from fingerpost.worker.repository.manager import ServedVersion


class SingleModel:
    def __init__(self, served: ServedVersion) -> None:
        self._served = served
        self._info = ModelInfo(name=served.model, versions=(served.version,))

    @property
    def default(self) -> str:
        return self._served.model

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._info,)

    @contextmanager
    def acquire(self, reference: ModelReference) -> Iterator[ServedVersion]:
        if not self._info.serves(reference):
            raise UnknownModel(
                f"{str(reference)!r} is not served here; this worker has "
                f"{self._served.model}@{self._served.version}"
            )
        yield self._served

    def model_names(self) -> tuple[str, ...]:
        return (self.default,)

    def statuses(self, model: str) -> tuple[VersionStatus, ...]:
        if model != self._served.model:
            raise UnknownModel(f"{model!r} is not served here; this worker has {self.default}")
        return (VersionStatus(version=self._served.version, state=VersionState.AVAILABLE),)

    def engines(self) -> tuple[Engine, ...]:
        return (self._served.engine,)
