"""The model that is evaluated: of a cluster, or in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from fingerpost.errors import InvalidRequest

if TYPE_CHECKING:
    from fingerpost.client import Client
    from fingerpost.client.tasks.results import TaskResult
    from fingerpost.worker.tools.local_inference import LocalInference

__all__ = ["ClusterModel", "LocalModel"]


class ClusterModel:
    """A model of a cluster, asked through the client.

    Args:
        client: open.
        model: `flowers`, `flowers@3` or `flowers@canary`.
    """

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model

    async def infer(self, path: str, *, top: int) -> TaskResult:
        """See `Target.infer`."""
        return await self._client.infer(path, self._model, top=top)


class LocalModel:
    """A model in this process. Files are read outside the measured time."""

    def __init__(self, inference: LocalInference) -> None:
        self._inference = inference

    async def infer(self, path: str, *, top: int) -> TaskResult:
        """See `Target.infer`."""
        try:
            data = await asyncio.to_thread(Path(path).read_bytes)
        except OSError as error:
            raise InvalidRequest(f"cannot be read: {error.strerror}") from error
        return await self._inference.infer(data, top=top)
