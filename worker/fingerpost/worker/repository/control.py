"""Loads, unloads and switches versions on request; each call returns when that is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.status import VersionState

if TYPE_CHECKING:
    from fingerpost.worker.repository.repository import ModelRepository

__all__ = ["ModelControl"]


class ModelControl:
    """An operator's requests to a running repository.

    Every method raises `UnknownModel` for a model that does not exist.
    """

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    async def load(self, model: str, version: int) -> None:
        """Load a version that is on disk, whatever the policy says; return once it is warm.

        Raises:
            UnknownModel: no such model or version.
            ConfigurationError: it cannot be loaded.
        """
        await self._repository.scan()
        lifecycle = self._repository.lifecycle(model)
        lifecycle.load(version)
        await self._repository.wait_until(
            lambda: (
                lifecycle.state(version) in (None, VersionState.AVAILABLE)
                or lifecycle.error(version)
                or lifecycle.idle
            )
        )
        if lifecycle.state(version) is not VersionState.AVAILABLE:
            error = lifecycle.error(version) or "it was unloaded again"
            raise ConfigurationError(f"{model}@{version} cannot be loaded: {error}")

    async def unload(self, model: str, version: int) -> None:
        """Unload a version; return once clients are not told of it any more.

        See `Lifecycle.unload`.

        Raises:
            ConfigurationError: the version to serve instead cannot be loaded, so it stays.
        """
        lifecycle = self._repository.lifecycle(model)
        lifecycle.unload(version)
        await self._repository.wait_until(
            lambda: lifecycle.state(version) is not VersionState.AVAILABLE or lifecycle.idle
        )
        if lifecycle.state(version) is VersionState.AVAILABLE:
            raise ConfigurationError("; ".join(lifecycle.problems()) or "it was loaded again")
        await self._repository.announce()

    async def rollback(self, model: str) -> int:
        """Serve the next lower version; return its number once it is served.

        Raises:
            UnknownModel: no such model.
            InvalidRequest: there is no lower version.
            ConfigurationError: none below could be loaded.
        """
        lifecycle = self._repository.lifecycle(model)
        before = lifecycle.default
        target = lifecycle.rollback()
        await self._repository.wait_until(lambda: lifecycle.default == target or lifecycle.idle)
        if lifecycle.default in (None, before):
            raise ConfigurationError(
                "; ".join(lifecycle.problems()) or f"{model} stays at {before}"
            )
        await self._repository.announce()
        return lifecycle.default or target

    async def set_alias(self, model: str, alias: str, version: int) -> None:
        """Point an alias to a version; return once it does. See `Lifecycle.set_alias`.

        Raises:
            ConfigurationError: the version cannot be loaded; the alias keeps its old target.
        """
        await self._repository.scan()
        lifecycle = self._repository.lifecycle(model)
        lifecycle.set_alias(alias, version)
        await self._repository.wait_until(
            lambda: lifecycle.aliases.get(alias) == version or lifecycle.idle
        )
        if lifecycle.aliases.get(alias) != version:
            raise ConfigurationError("; ".join(lifecycle.problems()) or f"{alias} was moved again")
        await self._repository.announce()

    async def load_model(self, model: str) -> None:
        """Load the versions that a model's policy chooses; try again what failed before.

        Raises:
            UnknownModel: no such model.
            ConfigurationError: a version of it cannot be loaded, or there is none.
        """
        await self._repository.scan()
        lifecycle = self._repository.lifecycle(model)
        lifecycle.enable()
        await self._repository.wait_until(lambda: lifecycle.idle)
        failed = [
            f"version {each.version}: {each.error}" for each in lifecycle.statuses() if each.error
        ]
        if failed or lifecycle.default is None:
            raise ConfigurationError(
                f"{model} cannot be loaded: {'; '.join(failed) or 'it has no version to serve'}"
            )
        await self._repository.announce()

    async def unload_model(self, model: str) -> None:
        """Unload a model, whatever is in its folder; return once clients are not told of it."""
        lifecycle = self._repository.lifecycle(model)
        lifecycle.disable()
        await self._repository.wait_until(lambda: lifecycle.idle)
        await self._repository.announce()
