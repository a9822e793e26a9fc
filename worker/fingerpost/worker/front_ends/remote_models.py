"""Models as a front end sees them: they run in the process that started it."""

from __future__ import annotations

import pickle
import socket
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import ConfigurationError, ModelFailed
from fingerpost.worker.front_ends.batch_memory import BatchMemory
from fingerpost.worker.front_ends.messages import (
    MAX_PACKET,
    Batch,
    Description,
    Load,
    Scores,
    raise_error,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import Item
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["RemoteBackend", "RemoteModels"]

# The most descriptors that Linux passes in one message.
_MAX_DESCRIPTORS: Final = 253


class RemoteModels:
    """Has models loaded by the first process; what `Worker` takes as `load`.

    Args:
        broker: a socket of packets to that process.
    """

    def __init__(self, broker: socket.socket) -> None:
        self._broker = broker
        self._lock = threading.Lock()

    def load(self, files: ModelFiles) -> RemoteBackend:
        """Have a version loaded, unless another front end has done so; blocks.

        Raises:
            ConfigurationError: it cannot be loaded, or is not one for front ends.
        """
        with self._lock:
            self._broker.sendall(msgspec.msgpack.encode(Load(files.name, int(files.version))))
            data, found, _, _ = socket.recv_fds(self._broker, MAX_PACKET, _MAX_DESCRIPTORS)
        if not found:
            if data:
                raise_error(data)
            raise ConfigurationError("the process with the models has ended")
        with open(found[0], "rb") as file:  # noqa: PTH123 - a descriptor
            description: Description = pickle.load(file)  # noqa: S301 - of the first process
        channels = [
            _Channel(socket.socket(fileno=one), BatchMemory(other))
            for one, other in zip(found[1::2], found[2::2], strict=True)
        ]
        if description.labels is not None:
            return SelfDescribingBackend(description, channels)
        return RemoteBackend(description, channels)


class RemoteBackend:
    """A model of another process, behind the `Backend` interface.

    Args:
        description: what it is.
        channels: one for each batch that may run at once.
    """

    def __init__(self, description: Description, channels: list[_Channel]) -> None:
        self.framework = description.framework
        self.platform = description.platform
        self.device = description.device
        self.input = description.input
        self.signature = description.signature
        self._channels = channels
        self._free: SimpleQueue[_Channel] = SimpleQueue()
        for channel in channels:
            self._free.put(channel)

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`. Raises what the model raises, and `ModelFailed` without it."""
        channel = self._free.get()
        try:
            return channel.run(images)
        finally:
            self._free.put(channel)

    def close(self) -> None:
        """Tell the other process that the model is not used any more."""
        for channel in self._channels:
            channel.close()


class SelfDescribingBackend(RemoteBackend):
    """A Python object of another process: see `SelfDescribing`."""

    def __init__(self, description: Description, channels: list[_Channel]) -> None:
        super().__init__(description, channels)
        self.labels = description.labels or ()
        self.max_batch = description.max_batch


class _Channel:
    """A socket of packets, and the memory for one batch."""

    def __init__(self, sock: socket.socket, memory: BatchMemory) -> None:
        self._socket = sock
        self._memory = memory

    def run(self, images: Sequence[Item]) -> NDArray[np.float32]:
        try:
            self._socket.sendall(msgspec.msgpack.encode(Batch(self._memory.write(images))))
            data = self._socket.recv(MAX_PACKET)
        except OSError as error:
            raise ModelFailed(f"the process with the model cannot be reached: {error}") from error
        if not data:
            raise ModelFailed("the process with the model has ended: use another worker")
        scores = msgspec.msgpack.decode(data, type=Scores)
        if scores.error:
            raise_error(scores.error)
        return self._memory.read_scores(scores.shape)

    def close(self) -> None:
        self._socket.close()
        self._memory.close()
