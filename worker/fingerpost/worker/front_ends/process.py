"""A front end: `python -m fingerpost.worker.front_ends.process`, which a worker starts.

It takes requests, decodes images and gathers batches as any worker does. Its models run in the
process that started it, which also registers it, and orders it to drain. It ends with that process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import Draining, FingerpostError
from fingerpost.registry import WorkerState, open_registry
from fingerpost.registry.http.descriptors import raise_descriptor_limit
from fingerpost.security.tls import ServerTls
from fingerpost.worker.eventloop import run_main
from fingerpost.worker.front_ends.load_board import LoadBoard
from fingerpost.worker.front_ends.messages import MAX_LINE, Event, Order, Served, Setup
from fingerpost.worker.front_ends.remote_models import RemoteModels
from fingerpost.worker.front_ends.service import FrontEndService
from fingerpost.worker.in_process import InProcess, Parts, serve_in_process
from fingerpost.worker.serving.malloc import limit_malloc_arenas
from fingerpost.worker.telemetry.metrics import WorkerMetrics

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fingerpost.worker.service import WorkerService

__all__ = ["FrontEnd", "main"]

logger = logging.getLogger(__name__)

# How often it writes its load, as a sign of life.
_BEAT_S: Final = 1.0
# The longest wait for the metrics of all, after which it answers with its own.
_METRICS_S: Final = 5.0


class FrontEnd:
    """One front end, from its start to its end.

    Args:
        setup: what it is started with.
        control: a stream to the process that started it.
        broker: see `RemoteModels`.
        board: the load of all.
        listener: the socket that all front ends listen on.
    """

    def __init__(
        self,
        setup: Setup,
        control: socket.socket,
        broker: socket.socket,
        board: LoadBoard,
        listener: socket.socket,
    ) -> None:
        self._setup = setup
        self._control = control
        self._models = RemoteModels(broker)
        self._board = board
        self._listener = listener
        self._side: InProcess | None = None
        self._stop = asyncio.Event()
        self._all_metrics: asyncio.Future[bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the order to stop."""
        reader, self._writer = await asyncio.open_unix_connection(
            sock=self._control, limit=MAX_LINE
        )
        self._spawn(self._obey(reader))
        config = self._setup.config
        tls = None if config.tls is None else ServerTls(config.tls)
        registry = open_registry(config.registry, config.registry_config, tls=config.tls)
        parts = Parts(
            config=config,
            source=self._setup.source,
            load=self._models.load,
            registry=registry,
            tls=tls,
            metrics=WorkerMetrics(tls),
            boot_id=self._setup.boot_id,
            announce=self._announce,
        )
        make = partial(self._service, FrontEndService)
        try:
            async with serve_in_process(
                parts, self._listener, make_service=make, frameworks=False
            ) as self._side:
                await self._announce()
                self._spawn(self._beat())
                await self._stop.wait()
        except FingerpostError as error:
            self._send(Event("failed", text=str(error)))
        finally:
            await registry.aclose()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    def _service(
        self, kind: type[FrontEndService], *more: object, **named: object
    ) -> WorkerService:
        return kind(
            *more,
            **named,
            number=self._setup.number,
            board=self._board,
            all_metrics=self._metrics_of_all,
        )

    async def _announce(self) -> None:
        side = self._side
        if side is None:
            return
        models = [
            Served(each.name, list(each.versions), dict(each.aliases), side.meta_of(each.name))
            for each in side.models()
        ]
        self._send(Event("serving", models=models))

    async def _beat(self) -> None:
        service = self._front()
        while True:
            service.beat()
            await asyncio.sleep(_BEAT_S)

    async def _metrics_of_all(self) -> bytes:
        asked = self._all_metrics
        if asked is None:
            asked = self._all_metrics = asyncio.get_running_loop().create_future()
            self._send(Event("metrics"))
        try:
            async with asyncio.timeout(_METRICS_S):
                return await asyncio.shield(asked)
        except TimeoutError:
            return self._front().own_metrics().encode()

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError, msgspec.MsgspecError):  # a killed process may reset it
            while line := await reader.readline():
                order = msgspec.json.decode(line, type=Order)
                if order.what == "stop":
                    self._on_stop()
                    return
                self._on_order(order)
        # Without its models it can answer nothing, and a client finds another worker sooner if
        # its connection ends now.
        logger.error("the process with the models has ended, so this front end ends too")
        os._exit(1)

    def _on_stop(self) -> None:
        if self._side is None:
            os._exit(0)  # it loads a model, and nobody has sent it anything
        self._stop.set()

    def _on_order(self, order: Order) -> None:
        side = self._side
        if order.what == "metrics":
            if self._all_metrics is not None:
                self._all_metrics.set_result(order.text.encode())
                self._all_metrics = None
        elif side is None:
            pass  # it is told the state when it serves
        elif order.what == "state":
            side.set_state(WorkerState(order.state))
        elif order.what == "refuse":
            side.refuse(Draining(order.text))
            self._spawn(self._tell_idle(order.timeout_s))
        elif order.what == "report":
            self._send(Event("report", text=self._front().own_metrics()))

    async def _tell_idle(self, timeout_s: float) -> None:
        if self._side is not None and await self._side.idle(timeout_s):
            self._send(Event("idle"))

    def _front(self) -> FrontEndService:
        if self._side is None or not isinstance(self._side.service, FrontEndService):
            raise RuntimeError("the front end has not started")
        return self._side.service

    def _send(self, event: Event) -> None:
        self._writer.write(msgspec.json.encode(event) + b"\n")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run(setup: Setup, descriptors: list[int]) -> None:
    control, broker, listener = (socket.socket(fileno=each) for each in descriptors[:3])
    names = [each.name for each in setup.config.batching.classes]
    board = LoadBoard(descriptors[3], setup.count, names)
    await FrontEnd(setup, control, broker, board, listener).run()


def main() -> None:
    """Run a front end; the arguments are descriptors that its parent has opened."""
    # The parent drains it, and gets the signals; those to the whole group are its too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    *descriptors, setup_file = map(int, sys.argv[1:])
    with open(setup_file, "rb") as file:  # noqa: PTH123 - a descriptor
        setup: Setup = pickle.load(file)  # noqa: S301 - of the process that started this one
    if setup.prepare is not None:
        setup.prepare()
    limit_malloc_arenas()
    raise_descriptor_limit()
    run_main(_run(setup, descriptors))


if __name__ == "__main__":
    main()
