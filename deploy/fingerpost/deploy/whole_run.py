"""Errors that concern every image of a run, which then ends with the reason.

Without this, a mistyped model or a proxy that does not run would fail every image on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.errors import (
    ConfigurationError,
    InvalidName,
    NoWorker,
    PeerError,
    RegistryError,
    Unauthorized,
    UnknownModel,
    UnknownService,
)
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from fingerpost.client import Client, Result

__all__ = ["OF_ALL_IMAGES", "WholeRun", "check_model"]

OF_ALL_IMAGES: Final = (
    ConfigurationError,
    InvalidName,
    NoWorker,
    RegistryError,
    Unauthorized,
    UnknownModel,
    UnknownService,
)
"""Errors that another image would get too."""

# So many failed images with no answer among them are taken as a fault of the cluster or of the
# way to it. One image that breaks each worker, and a worker that was just lost, cost fewer.
_FIRST: Final = 20


async def check_model(client: Client, model: str) -> None:
    """Ask for the model before any image is sent.

    Raises:
        RegistryError: no proxy, or not the registry, answered the first request.
        UnknownService: there is no such model; the message names those that there are.
    """
    name = ModelReference.parse(model).model
    services = await client.services()
    if name in services:
        return
    try:
        await client.resolve(name)
    except UnknownService as error:
        known = f"the models are: {', '.join(services)}" if services else "there is no other model"
        raise UnknownService(f"{error.message}; {known}") from error


class WholeRun:
    """Holds results back until it is known whether their errors concern all images."""

    def __init__(self) -> None:
        self._answered = False
        self._held: list[Result] = []

    def add(self, result: Result) -> list[Result]:
        """The results to report now, in their order.

        Raises:
            FingerpostError: the run must end; results that were held back are not to be reported.
        """
        error = result.error
        if isinstance(error, OF_ALL_IMAGES):
            raise error
        self._held.append(result)
        if not self._answered and isinstance(error, PeerError):
            if len(self._held) < _FIRST:
                return []
            raise PeerError(
                f"the first {_FIRST} images failed, so that no other one is sent; the last one: "
                f"{error.message}"
            ) from error
        self._answered = True
        return self.rest()

    def rest(self) -> list[Result]:
        """The results that are still held back, at the end of a run."""
        held, self._held = self._held, []
        return held
