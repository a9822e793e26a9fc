"""Serve a Python object from a program of one's own, in one call."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fingerpost.errors import RegistryError, RegistryUnreachable
from fingerpost.worker.config import WorkerConfig
from fingerpost.worker.eventloop import run_main
from fingerpost.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.worker.backends.python_object import PythonModel

__all__ = ["serve"]

_LOCAL_REGISTRY: Final = WorkerConfig().registry


def serve(
    model: PythonModel,
    *,
    name: str,
    version: str = "1",
    labels: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    max_batch: int | None = None,
    registry: str | None = None,
    host: str | None = None,
    port: int | None = None,
    config: WorkerConfig | None = None,
) -> None:
    """Serve a Python object until SIGTERM or Ctrl-C; blocks meanwhile.

    ::

        from fingerpost.worker import serve


        class Flowers:
            height = width = 224
            labels = ["daisy", "rose"]

            def predict(self, batch):  # uint8 [N, 224, 224, 3], RGB
                return scores  # [N, 2]


        serve(Flowers(), name="flowers", registry="consul://127.0.0.1:8500")

    The object is warmed up with real calls of the smallest and the largest batch, some of them
    twice to measure them, and registered after that. At the first signal the worker drains: it
    tells the registry, finishes the requests in flight, and `serve` returns. A second signal ends
    the process at once. Logs go to standard error, unless the program has configured `logging`
    itself.

    For a program with an event loop of its own there is `Worker.for_object`.

    Args:
        model: an object with a method `predict(batch)`; see `PythonModel`.
        name: the name of the model, which clients ask for: 1 to 63 lower-case letters, digits and
            hyphens.
        version: its version, a number.
        labels: the names of the classes, in the order of the scores; by default the object's
            attribute `labels`, else the numbers of the classes.
        image_size: pixels of both sides, or `(height, width)`; by default the object's attributes
            `height` and `width`.
        max_batch: most images in one call of `predict`; by default the object's attribute
            `max_batch`, else 32.
        registry: the registry's URL, such as `consul://127.0.0.1:8500`; by default the one that
            `fingerpost registry` runs on this machine.
        host: the address to listen on; by default loopback. `0.0.0.0` serves other machines.
        port: the port to listen on; by default a free one.
        config: all other settings of the worker; `registry`, `host` and `port` replace its own.

    Raises:
        ConfigurationError: a value that is not valid, or an object that cannot be run.
        RegistryError: the registry refuses the registration, or cannot be reached for
            `config.registration.registry_wait_s`; by default it is waited for.
        RuntimeError: not called in the main thread, or called inside a running event loop.
    """
    if threading.current_thread() is not threading.main_thread() or _in_event_loop():
        raise RuntimeError(
            "serve() needs the main thread and no running event loop: "
            "use `async with Worker.for_object(...)` there"
        )
    config = config or WorkerConfig()
    config = replace(
        config,
        registry=config.registry if registry is None else registry,
        host=config.host if host is None else host,
        port=config.port if port is None else port,
    )
    worker = Worker.for_object(
        model,
        name=name,
        version=version,
        labels=labels,
        image_size=image_size,
        max_batch=max_batch,
        config=config,
    )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        run_main(worker.run_until_signal())
    except RegistryError as error:
        # Without what caused it: the message says all, and the reader's program is not at fault.
        if config.registry != _LOCAL_REGISTRY or not isinstance(error, RegistryUnreachable):
            raise error from None
        raise RegistryUnreachable(
            f"{error.message} Start one with `fingerpost registry`, or name yours with registry="
        ) from None


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
