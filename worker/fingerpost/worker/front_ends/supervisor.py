"""Starts the front ends of a worker, speaks for them, and starts again those that die."""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client import generate_latest

from fingerpost.basics.backoff import Backoff
from fingerpost.errors import ConfigurationError
from fingerpost.registry import LoadReport, ModelInfo, WorkerState
from fingerpost.worker.front_ends.child import ChildProcess
from fingerpost.worker.front_ends.common_models import common_models
from fingerpost.worker.front_ends.limits import config_of_one
from fingerpost.worker.front_ends.load_board import LoadBoard
from fingerpost.worker.front_ends.merged_metrics import MergedMetrics
from fingerpost.worker.front_ends.messages import (
    MAX_LINE,
    Event,
    Order,
    Setup,
    dump_setup,
)
from fingerpost.worker.front_ends.model_server import ModelServer
from fingerpost.worker.serving.memory import BodyMemory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from fingerpost.errors import FingerpostError
    from fingerpost.worker.in_process import Parts

__all__ = ["FrontEnds", "serve_by_front_ends"]

logger = logging.getLogger(__name__)

# After this long, a death no longer counts: the next start comes at once.
_STABLE_AFTER_S: Final = 60.0
_BACKOFF: Final = Backoff(base_s=0.2, cap_s=10.0)
# How often it is looked whether the front ends write their load, and how long they may end.
_LOOK_S: Final = 1.0
_END_S: Final = 10.0
# The longest wait for the metrics of one front end.
_REPORT_S: Final = 2.0


@asynccontextmanager
async def serve_by_front_ends(
    parts: Parts,
    listener: socket.socket,
    *,
    prepare: Callable[[], object] | None = None,
) -> AsyncIterator[FrontEnds]:
    """Run front ends, which listen when this begins, inside the `async with` block.

    Args:
        parts: the worker's.
        listener: a bound socket, which all of them get.
        prepare: see `Setup`.

    Raises:
        ConfigurationError: one of them cannot start.
    """
    front_ends = FrontEnds(parts, listener, prepare)
    try:
        await front_ends.start()
        yield front_ends
    finally:
        await front_ends.aclose()


class FrontEnds:
    """A `RequestSide` of several processes. See `serve_by_front_ends` for the arguments."""

    def __init__(
        self, parts: Parts, listener: socket.socket, prepare: Callable[[], object] | None
    ) -> None:
        config = parts.config
        self.ports = {"http": listener.getsockname()[1]}
        self.meta: dict[str, str] = {}
        self.state = WorkerState.STARTING
        self._parts = parts
        self._listener = listener
        self._prepare = prepare
        self._models = ModelServer(parts.source, parts.load, config.batching)
        self._board = LoadBoard.made(
            config.front_ends, [each.name for each in config.batching.classes]
        )
        self._config_of_one = config_of_one(config, memory_bytes=BodyMemory(config.requests).most)
        self._metrics = MergedMetrics()
        self._all = [ChildProcess(number) for number in range(config.front_ends)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeping: list[asyncio.Task[None]] = []
        self._refusal: Order | None = None
        self._served: dict[str, tuple[ModelInfo, dict[str, str]]] = {}
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Start all front ends; return when they listen. Raises `ConfigurationError`."""
        keeping = self._keeping = [self._spawn(self._keep(each)) for each in self._all]
        waiting = self._spawn(_all_serve(self._all))
        await asyncio.wait((waiting, *keeping), return_when=asyncio.FIRST_COMPLETED)
        failures = [each.exception() for each in keeping if each.done()]
        for failure in failures:
            if failure is not None:
                raise failure
        await waiting
        self._spawn(self._watch())

    async def aclose(self) -> None:
        """Stop all front ends; requests in flight are not awaited."""
        self._stopping.set()
        for each in self._all:
            each.send(Order("stop"))
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=_END_S)
        for each in self._all:
            each.kill()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._models.close, _END_S)

    # The interface `RequestSide`

    def models(self) -> tuple[ModelInfo, ...]:
        """What all front ends serve that live: whoever is sent here finds it in each of them."""
        return tuple(info for info, _ in self._served.values())

    def meta_of(self, model: str) -> dict[str, str]:
        """What is registered with one model, as one of the front ends has it."""
        return self._served[model][1]

    def load(self) -> LoadReport:
        """The load of all front ends."""
        own = LoadReport(rif=0, slots=0, state=self.state, boot_id=self._parts.boot_id, seq=0)
        return self._board.merged(own, self._board.others(-1))

    def engine_healthy(self) -> bool:
        """Whether no front end says that a model, or all its decoders, stall."""
        return self.load().state is not WorkerState.FAILED

    def set_state(self, state: WorkerState) -> None:
        """Set the state of all front ends."""
        self.state = state
        for each in self._all:
            each.send(Order("state", state=state.value))

    def refuse(self, error: FingerpostError) -> None:
        """Have all front ends refuse new requests."""
        timeout_s = self._parts.config.drain.timeout_s
        self._refusal = Order("refuse", text=str(error), timeout_s=timeout_s)
        for each in self._all:
            each.send(self._refusal)

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no front end has a request in flight; False at the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                for each in self._all:
                    if each.serving:
                        await each.idle.wait()
        except TimeoutError:
            return False
        return True

    # Running

    async def _keep(self, process: ChildProcess) -> None:
        """Keep one front end running until the end."""
        first, failures = True, 0
        while not self._stopping.is_set():
            began = time.monotonic()
            reader = await self._started(process)
            failed = ""
            with suppress(ConnectionError, ValueError):
                while line := await reader.readline():
                    event = msgspec.json.decode(line, type=Event)
                    failed = event.text if event.what == "failed" else failed
                    self._on_event(process, event)
            code = await process.wait()
            had_served = process.serving
            self._forget(process)
            if self._stopping.is_set():
                return
            if first and not had_served:
                raise ConfigurationError(failed or f"a front end ended at its start ({code})")
            first = False
            how = failed or (f"signal {-code}" if code < 0 else f"exit status {code}")
            logger.warning("front end %d ended by %s; starting it again", process.number, how)
            self._spawn(self._announce())
            failures = 0 if time.monotonic() - began > _STABLE_AFTER_S else failures + 1
            await asyncio.sleep(_BACKOFF.nominal_s(failures))

    async def _started(self, process: ChildProcess) -> asyncio.StreamReader:
        setup = Setup(
            number=process.number,
            count=len(self._all),
            config=self._config_of_one,
            port=self.ports["http"],
            boot_id=self._parts.boot_id,
            source=self._parts.source,
            prepare=self._prepare,
        )
        control, its_control = socket.socketpair()
        broker, its_broker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_control, its_broker, tempfile.TemporaryFile() as file:
            dump_setup(setup, file)
            file.seek(0)
            passed = [
                each if isinstance(each, int) else each.fileno()
                for each in (its_control, its_broker, self._listener, self._board.descriptor, file)
            ]
            await process.start(passed)
        self._models.serve(broker)
        reader, process.writer = await asyncio.open_unix_connection(sock=control, limit=MAX_LINE)
        return reader

    def _on_event(self, process: ChildProcess, event: Event) -> None:
        if event.what == "serving":
            process.models = event.models
            self._update_served()
            if not process.serving:
                process.send(Order("state", state=self.state.value))
                if self._refusal is not None:
                    process.send(self._refusal)
                process.serve()
            self._spawn(self._announce())
        elif event.what == "idle":
            process.idle.set()
        elif event.what == "report":
            process.reported(event.text)
        elif event.what == "metrics":
            self._spawn(self._tell_metrics(process))

    async def _announce(self) -> None:
        """Tell the registry; a slow one does not keep the front ends waiting."""
        await self._parts.announce()

    async def _tell_metrics(self, asker: ChildProcess) -> None:
        """Ask all front ends for their metrics, and tell one of them the sum."""
        await asyncio.gather(*(self._read_metrics(each) for each in self._all if each.serving))
        own = generate_latest(self._parts.metrics.registry).decode()
        self._metrics.note("first", own)
        asker.send(Order("metrics", text=self._metrics.text()))

    async def _read_metrics(self, process: ChildProcess) -> None:
        text = await process.report(_REPORT_S)
        if text is not None and process.serving:
            self._metrics.note(str(process.number), text)

    async def _watch(self) -> None:
        """Kill a front end whose event loop has stalled."""
        limit_s = self._parts.config.models.stall_s
        while True:
            await asyncio.sleep(_LOOK_S)
            for each in self._all:
                seen_s = self._board.seen_s(each.number)
                silent_s = time.monotonic() - seen_s
                if seen_s and silent_s > limit_s:
                    logger.error(
                        "front end %d has stalled for %.0f s: it is killed and started again",
                        each.number,
                        silent_s,
                    )
                    each.kill()

    def _forget(self, process: ChildProcess) -> None:
        """Nothing of a process that has ended counts any more, but its counters."""
        process.ended()
        self._board.clear(process.number)
        self._metrics.end(str(process.number))
        self._update_served()

    def _update_served(self) -> None:
        living = [each.models for each in self._all if each.models is not None]
        if living:  # if none lives, they are back in a moment: what they served stays
            self._served = common_models(living)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _all_serve(processes: list[ChildProcess]) -> None:
    for each in processes:
        await each.served.wait()
