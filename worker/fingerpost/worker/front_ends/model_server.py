"""The models of all front ends, in the process that started these.

A version is loaded when the first front end asks for it, and closed when the last one has left it.
Each of its threads waits for the batches of all front ends. Those that are there at once run as
one, as far as the largest batch of the model allows: two front ends that have half a batch each do
not make the model run twice.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import select
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import ItemRunner, SelfDescribing, completed
from fingerpost.worker.backends.raised import is_the_models
from fingerpost.worker.front_ends.batch_memory import BatchMemory
from fingerpost.worker.front_ends.messages import (
    MAX_PACKET,
    Batch,
    Description,
    Load,
    Scores,
    error_bytes,
)
from fingerpost.worker.threads import lower_priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.worker.backends.base import Backend, Item
    from fingerpost.worker.engine.batching.config import BatchingConfig
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.repository.sources import ModelSource

__all__ = ["ModelServer"]

logger = logging.getLogger(__name__)

# Batches that one thread runs at once; a descriptor passes at most 253 of them, two for each.
_MAX_LANES: Final = 64


class ModelServer:
    """Loads models for front ends, and runs their batches.

    Args:
        source: where the models are.
        load: makes a backend of a version's files.
        batching: the worker's; a model's own settings override it.
    """

    def __init__(
        self,
        source: ModelSource,
        load: Callable[[ModelFiles], Backend],
        batching: BatchingConfig,
    ) -> None:
        self._source = source
        self._load = load
        self._batching = batching
        self._models: dict[tuple[str, int, str], _Model] = {}
        self._loading = threading.Lock()  # held for as long as a load takes
        self._lock = threading.Lock()
        self._first = True
        self._threads: set[threading.Thread] = set()

    def serve(self, broker: socket.socket) -> None:
        """Answer one front end's `Load`s in a thread of its own, until its socket ends."""
        threading.Thread(target=self._serve, args=(broker,), name="loads", daemon=True).start()

    def close(self, timeout_s: float) -> None:
        """Wait until the models are closed, once their front ends have left; blocks."""
        until = time.monotonic() + timeout_s
        for thread in tuple(self._threads):
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self, broker: socket.socket) -> None:
        with broker:
            while True:
                try:
                    data = broker.recv(MAX_PACKET)
                    if not data:
                        return
                    self._answer(broker, msgspec.msgpack.decode(data, type=Load))
                except (OSError, msgspec.MsgspecError) as error:
                    logger.debug("a front end has left: %s", error)
                    return

    def _answer(self, broker: socket.socket, wanted: Load) -> None:
        opened: list[int] = []
        try:
            with self._loading:
                opened = self._attached(wanted)
        except BaseException as error:
            if not is_the_models(error):
                raise
            if not isinstance(error, ConfigurationError):
                logger.exception("loading %s@%d", wanted.model, wanted.version)
            broker.sendall(error_bytes(error))
            return
        try:
            socket.send_fds(broker, [b"+"], opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _attached(self, wanted: Load) -> list[int]:
        """The descriptors for a front end: the description's, and two for each lane."""
        fingerprint = self._source.fingerprint(wanted.model, wanted.version)
        key = (wanted.model, wanted.version, fingerprint)
        with self._lock:
            model = self._models.get(key)
            if model is not None:
                return model.attach()
        made = self._made(self._source.files(wanted.model, wanted.version), key)
        with self._lock:
            self._models[key] = made
            return made.attach()

    def _made(self, files: ModelFiles, key: tuple[str, int, str]) -> _Model:
        backend = self._load(files)
        if self._first:  # see `loader`: what is imported now is left out of collections
            self._first = False
            gc.collect()
            gc.freeze()
        if isinstance(backend, ItemRunner):
            backend.close()
            raise ConfigurationError(
                f"model {files.name} is of task {files.manifest.task.value}, and front ends serve "
                "models that give one row of numbers for an image: leave out --front-ends"
            )

        def ended() -> None:
            self._models.pop(key, None)

        config = self._batching.override(completed(files, backend).manifest.batch)
        made = _Model(backend, files, config, self._lock, ended)
        self._threads = {each for each in self._threads if each.is_alive()} | made.threads
        return made


class _Model:
    """A loaded model and its threads.

    Args:
        lock: held for `attach`, and for `ended`, which is called when no front end uses it.
    """

    def __init__(
        self,
        backend: Backend,
        files: ModelFiles,
        config: BatchingConfig,
        lock: threading.Lock,
        ended: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._files = files  # whose private copy lasts as long as this
        self._lock = lock
        self._ended = ended
        self._users = 0
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        own = isinstance(backend, SelfDescribing)
        self._description = pickle.dumps(
            Description(
                framework=backend.framework,
                platform=backend.platform,
                device=backend.device,
                # In the event loop of a front end nothing may wait for another process.
                input=replace(backend.input, inline=False),
                signature=getattr(backend, "signature", ""),
                labels=backend.labels if own else None,  # type: ignore[attr-defined]
                max_batch=backend.max_batch if own else None,  # type: ignore[attr-defined]
            )
        )
        fixed = backend.input.batch is not None or config.sizes
        most = 0 if fixed else config.max_batch
        count = min(backend.input.concurrent_batches, _MAX_LANES)
        self._lanes = [_Lane(backend, most, self._end, self._left) for _ in range(count)]
        self._working = count
        self.threads = {
            threading.Thread(target=self._work, args=(lane,), name="model", daemon=True)
            for lane in self._lanes
        }
        for thread in self.threads:
            thread.start()

    def attach(self) -> list[int]:
        """The descriptors for one more front end, which the caller closes."""
        self._users += 1
        described = os.memfd_create("fingerpost-model", os.MFD_CLOEXEC)
        os.write(described, self._description)
        os.lseek(described, 0, os.SEEK_SET)
        found = [described]
        for lane in self._lanes:
            own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            memory = BatchMemory.made()
            found += [other.detach(), os.dup(memory.descriptor)]
            lane.add(own, memory)
        return found

    def _left(self, lane: _Lane) -> None:
        """A front end has closed its socket to a lane; it closes those to all lanes."""
        if lane is not self._lanes[0]:
            return
        with self._lock:
            self._users -= 1
            if not self._users:
                self._ended()
                os.eventfd_write(self._end, 1)

    def _work(self, lane: _Lane) -> None:
        lower_priority()
        lane.run()
        with self._lock:
            self._working -= 1
            if self._working:
                return
        os.close(self._end)
        try:
            self._backend.close()
        except Exception:
            logger.exception("the model could not be closed")


class _Lane:
    """One thread of a model: it runs the batches of all front ends, one after the other.

    Args:
        most: most images of batches that run as one; 0 runs each by itself.
        end: readable at the end.
        left: called when a front end has left.
    """

    def __init__(
        self, backend: Backend, most: int, end: int, left: Callable[[_Lane], None]
    ) -> None:
        self._backend = backend
        self._most = most
        self._end = end
        self._left = left
        self._channels: dict[int, tuple[socket.socket, BatchMemory]] = {}
        self._epoll = select.epoll()
        self._epoll.register(end, select.EPOLLIN)

    def add(self, sock: socket.socket, memory: BatchMemory) -> None:
        """Run the batches of one more front end; from any thread."""
        self._channels[sock.fileno()] = sock, memory
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Run batches until no front end is left."""
        while True:
            waiting: list[tuple[int, list[Item]]] = []
            ended = False
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._end:
                    ended = True
                elif (items := self._received(descriptor)) is not None:
                    waiting.append((descriptor, items))
            for group in self._groups(waiting):
                self._run(group)
            del waiting  # nothing refers to a front end's memory while it sleeps
            if ended:
                self._epoll.close()
                return

    def _received(self, descriptor: int) -> list[Item] | None:
        sock, memory = self._channels[descriptor]
        try:
            data = sock.recv(MAX_PACKET)
            if data:
                return memory.read(msgspec.msgpack.decode(data, type=Batch).runs)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            logger.warning("a front end's batch cannot be read: %s", error)
        self._epoll.unregister(descriptor)
        del self._channels[descriptor]
        sock.close()
        memory.close()
        self._left(self)
        return None

    def _groups(self, waiting: list[tuple[int, list[Item]]]) -> list[list[tuple[int, list[Item]]]]:
        """What is run as one."""
        groups: list[list[tuple[int, list[Item]]]] = []
        size = self._most
        for each in waiting:
            if size + len(each[1]) <= self._most:
                groups[-1].append(each)
            else:
                groups.append([each])
                size = 0
            size += len(each[1])
        return groups

    def _run(self, group: list[tuple[int, list[Item]]]) -> None:
        try:
            scores = self._predicted([item for _, items in group for item in items])
        except BaseException as error:
            if not is_the_models(error):
                raise
            if len(group) > 1:  # so that only the batch with the bad image fails
                for each in group:
                    self._run([each])
            else:
                self._answer(group[0][0], Scores(error=error_bytes(error)))
            return
        at = 0
        for descriptor, items in group:
            part = scores[at : at + len(items)]
            at += len(items)
            self._channels[descriptor][1].write_scores(part)
            self._answer(descriptor, Scores(shape=list(part.shape)))

    def _predicted(self, items: list[Any]) -> Any:
        scores = np.asarray(self._backend.predict(items), np.float32)
        if scores.ndim != 2 or len(scores) != len(items):
            raise ValueError(f"its scores have shape {list(scores.shape)} for {len(items)} images")
        return scores

    def _answer(self, descriptor: int, scores: Scores) -> None:
        try:
            self._channels[descriptor][0].sendall(msgspec.msgpack.encode(scores))
        except OSError as error:  # the next look at its socket sees the end
            logger.debug("a front end has left before its scores: %s", error)
