"""What an operator orders: each returns when it is done, or raises why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.status import VersionState

if TYPE_CHECKING:
    from fingerpost.worker.repository.repository import ModelRepository

__all__ = ["ModelControl"]


class ModelControl:
    """Orders to a running repository; each raises `UnknownModel` for a model that is not there."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    async def load(self, model: str, version: int) -> None:
        """Load a version that stands on disk, whatever the policy says; returns once it is warm.

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
        """Do without a version; returns once it is not told of any more. See `Lifecycle.unload`.

        Raises:
            ConfigurationError: what is to serve instead cannot be loaded, so it stays.
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
        """Serve the next lower version; its number, once that is served.

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
        """Point an alias to a version; returns once it does. See `Lifecycle.set_alias`.

        Raises:
            ConfigurationError: the version cannot be loaded; the alias points where it did.
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
        """Load a model's versions as its policy says; what failed before is tried again.

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
        """Do without a model, whatever stands in its folder; returns once it is not told of."""
        lifecycle = self._repository.lifecycle(model)
        lifecycle.disable()
        await self._repository.wait_until(lambda: lifecycle.idle)
        await self._repository.announce()
