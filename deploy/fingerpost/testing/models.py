"""What a fake worker serves: the models as a test writes them, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry import ModelReference
from fingerpost.registry.names import check_alias

__all__ = ["Answer", "FakeModel", "FakeModels"]

Answer: TypeAlias = str | Sequence[tuple[str, float]]
"""What a fake model answers for one image: labels with their scores (0 to 1), or one label, whose
score is then 1."""

FakeModel: TypeAlias = Answer | Callable[[bytes], Answer]
"""A fake model: the same answer for every image, or a function of the image's bytes."""


class FakeModels:
    """The models of a fake worker, checked.

    Args:
        models: by name, such as `flowers`, or by name and version, such as `flowers@3`. Without a
            version it is 1.
        aliases: by model and alias the version, such as `{"flowers": {"stable": "3"}}`.

    Raises:
        ConfigurationError: a name, version, alias or model that is not valid, or an alias of a
            version that is not there.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel],
        aliases: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        for what, given in (("models", models), ("aliases", aliases or {})):
            if not isinstance(given, Mapping):
                raise ConfigurationError(f"{what} is {given!r}: give a dict, by a model's name")
        self._models: dict[str, dict[int, FakeModel]] = {}
        for written, model in models.items():
            name, version = _parse(written)
            if not (callable(model) or isinstance(model, Sequence)):
                raise ConfigurationError(
                    f"model {written!r} is of type {type(model).__name__}: give a label, a list of "
                    "(label, score), or a function of the image's bytes; for an object with a "
                    "method predict there is fingerpost.worker.Worker.for_object"
                )
            if not callable(model) and not isinstance(model, str):
                _check_answer(written, model)
            self._models.setdefault(name, {})[version] = model
        self._aliases: dict[str, dict[str, int]] = {}
        for name, pointers in (aliases or {}).items():
            if not isinstance(pointers, Mapping):
                raise ConfigurationError(
                    f"aliases of {name!r} is {pointers!r}: give a dict, such as {{'stable': '3'}}"
                )
            self._aliases[name] = {
                _alias(alias): self._version(name, version) for alias, version in pointers.items()
            }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, in the order given."""
        return tuple(self._models)

    def versions(self, name: str) -> tuple[int, ...]:
        """The versions of a model, in the order given."""
        return tuple(self._models[name])

    def aliases(self, name: str) -> Mapping[str, int]:
        """The aliases of a model, and the versions that they point to."""
        return self._aliases.get(name, {})

    def answer(self, name: str, version: int, image: bytes) -> tuple[tuple[str, float], ...]:
        """What a version answers for an image. Raises what its function raises."""
        model = self._models[name][version]
        answer = model(image) if callable(model) else model
        if isinstance(answer, str):
            return ((answer, 1.0),)
        return tuple((str(label), float(score)) for label, score in answer)

    def _version(self, name: str, version: str) -> int:
        versions = self._models.get(name, {})
        version = str(version)
        if not version.isdecimal() or int(version) not in versions:
            there = ", ".join(f"{name}@{each}" for each in versions) or ", ".join(self._models)
            raise ConfigurationError(f"an alias points to {name}@{version}: there is only {there}")
        return int(version)


def _check_answer(written: str, model: Any) -> None:
    """Raise unless it is a list of labels and scores."""
    try:
        pairs = [(label, float(score)) for label, score in model]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or not all(isinstance(label, str) for label, _ in pairs):
        raise ConfigurationError(
            f"model {written!r} answers {model!r}: give a list of (label, score), such as "
            "[('daisy', 0.9)]"
        )


def _parse(written: str) -> tuple[str, int]:
    try:
        reference = ModelReference.parse(written)
    except InvalidName as error:
        raise ConfigurationError(error.message) from error
    if reference.alias is not None:
        raise ConfigurationError(
            f"model {written!r} names an alias: give a version, such as "
            f"{reference.model}@1, and the alias in `aliases`"
        )
    return reference.model, int(reference.version or 1)


def _alias(alias: str) -> str:
    try:
        return check_alias(alias)
    except InvalidName as error:
        raise ConfigurationError(error.message) from error
