"""The models that a worker serves, kept in step with what is on disk; a `ModelManager`."""

from __future__ import annotations

import asyncio
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError, InvalidRequest, UnknownModel
from fingerpost.worker.repository.handle import VersionHandle
from fingerpost.worker.repository.load_failure import LoadFailure, too_little_room
from fingerpost.worker.repository.manager import ServedVersion
from fingerpost.worker.repository.relabelling import relabelled
from fingerpost.worker.repository.versions.lifecycle import Lifecycle
from fingerpost.worker.threads import lower_priority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from fingerpost.registry import ModelInfo, ModelReference
    from fingerpost.worker.engine.engine import Engine
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.models.status import VersionStatus
    from fingerpost.worker.repository.loader import LoadedModel
    from fingerpost.worker.repository.sources import ModelSource
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["ModelRepository"]

logger = logging.getLogger(__name__)

# A request lasts ten minutes at most (`admission`); a version that is in use longer is unloaded.
_MAX_HOLD_S: Final = 600.0
# Characters of an error that are kept: the framework's own reasons and the remedy.
_MAX_ERROR: Final = 2000
# Of a text in the registry, of which Consul takes 512.
_MAX_META_BYTES: Final = 400
_CUT: Final = "... (the worker's log has all of it)"


class ModelRepository:
    """Scans a source regularly, loads and unloads versions; handlers `acquire` what is loaded.

    One version is loaded at a time, in a thread of low priority. It is served once it is warm. To
    unload a version, the repository first stops announcing it, then for `lease_s` still serves it
    to clients that ask for it by number, then waits for its last request, then frees it.

    Args:
        source: where the models are.
        load: makes a warm engine from a version's files; blocks, and is called in a thread.
        metrics: counts failed loads.
        poll_s: seconds between two scans; 0 scans only once.
        lease_s: seconds for which a client may still ask for what it was told before.
        announce: tells the registry what is served now, after each scan, load and unload.
    """

    def __init__(
        self,
        source: ModelSource,
        load: Callable[[ModelFiles], LoadedModel],
        *,
        metrics: WorkerMetrics,
        poll_s: float,
        lease_s: float,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._source = source
        self._load_files = load
        self._metrics = metrics
        self._poll_s = poll_s
        self._lease_s = lease_s
        self.announce = announce
        self._models: dict[str, Lifecycle] = {}
        self._entries: dict[str, dict[int, VersionHandle]] = {}
        self._engines: tuple[Engine, ...] = ()
        self._infos: tuple[ModelInfo, ...] = ()
        self._loader = ThreadPoolExecutor(
            1, thread_name_prefix="loader", initializer=lower_priority
        )
        self._scanning = asyncio.Lock()
        self._loading = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self._problem = ""
        self._started = False

    # The interface `ModelManager`

    @property
    def default(self) -> str:
        """The model for requests that name none.

        Raises:
            InvalidRequest: there are several.
        """
        names = [info.name for info in self._infos] or list(self._models)
        if len(names) != 1:
            raise InvalidRequest(
                f"this worker serves several models ({', '.join(names[:5])}): name one, "
                "as in POST /v1/classify/MODEL"
            )
        return names[0]

    def models(self) -> tuple[ModelInfo, ...]:
        """See `ModelManager.models`."""
        return self._infos

    def acquire(self, reference: ModelReference) -> VersionHandle:
        """See `ModelManager.acquire`."""
        entries = self._entries.get(reference.model)
        if entries:
            lifecycle = self._models[reference.model]
            if reference.version is not None:
                version = int(reference.version)
            elif reference.alias is not None:
                version = lifecycle.aliases.get(reference.alias, -1)
            elif lifecycle.default is not None:
                version = lifecycle.default
            else:
                version = max(
                    entries
                )  # the model is being unloaded; its clients do not know it yet
            if version in entries:
                return entries[version]
        raise UnknownModel(f"{str(reference)!r} is not served here; {self._served_text()}")

    def statuses(self, model: str) -> tuple[VersionStatus, ...]:
        """See `ModelManager.statuses`."""
        entries = self._entries.get(model, {})
        digests = {str(version): each.served.digest for version, each in entries.items()}
        return tuple(
            replace(each, digest=digests.get(each.version, ""))
            for each in self.lifecycle(model).statuses()
        )

    def model_names(self) -> tuple[str, ...]:
        """See `ModelManager.model_names`."""
        return tuple(sorted(self._models))

    def engines(self) -> tuple[Engine, ...]:
        """See `ModelManager.engines`; versions that are being unloaded are among them."""
        return self._engines

    # For operators

    def meta(self, model: str) -> dict[str, str]:
        """Facts about the default version for the registration; `load-error` says what is wrong."""
        lifecycle = self.lifecycle(model)
        entry = self._entries.get(model, {}).get(lifecycle.default or 0)
        meta = dict(entry.meta) if entry is not None else {}
        if problems := self.problems(model):
            text = " ".join("; ".join(problems).split())
            meta["load-error"] = _cut(text)
        return meta

    def default_version(self, model: str) -> str | None:
        """The version for requests that name none. Raises `UnknownModel`."""
        default = self.lifecycle(model).default
        return None if default is None else str(default)

    def problems(self, model: str) -> tuple[str, ...]:
        """What is wrong with a model. Raises `UnknownModel`."""
        own = self.lifecycle(model).problems()
        return (*own, self._problem) if self._problem else own

    # For `ModelControl`

    def lifecycle(self, model: str) -> Lifecycle:
        """The lifecycle of one model. Raises `UnknownModel`."""
        lifecycle = self._models.get(model)
        if lifecycle is None:
            raise UnknownModel(f"{model!r} is not served here; {self._served_text()}")
        return lifecycle

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Load and unload what is to be, until the condition is true."""
        self._advance()
        while not condition():
            await self._changed.wait()

    # Running

    async def start(self) -> None:
        """Scan, load all wanted versions, and then go on scanning in the background.

        Raises:
            ConfigurationError: nothing can be served.
        """
        await self.scan()
        if problem := too_little_room(self._source.place):
            logger.warning("%s", problem)
        self._advance()
        await self.wait_until(lambda: all(each.idle for each in self._models.values()))
        problems = [
            problem if self._source.single_model else f"{name}: {problem}"
            for name in self.model_names()
            for problem in self._models[name].problems()
        ]
        if not self.models():
            raise ConfigurationError("; ".join(problems) or "there is no version to serve")
        for problem in problems:
            logger.error("started, but not everything could be loaded: %s", problem)
        self._started = True
        if self._poll_s:
            self._spawn(self._watch(), "watching the models")

    async def scan(self) -> None:
        """Scan the source now.

        Raises:
            ConfigurationError: it cannot be scanned; what is loaded stays loaded.
        """
        async with self._scanning:
            found = await asyncio.to_thread(self._source.scan)
            first = not self._models
            for name, each in found.items():
                lifecycle = self._models.get(name)
                if lifecycle is None:
                    lifecycle = self._models[name] = Lifecycle(name, trust_first_scan=first)
                before = lifecycle.problems()
                lifecycle.scanned(each.versions, each.settings, each.error)
                if self._started:  # else `start` says it
                    for problem in lifecycle.problems():
                        if problem not in before:
                            logger.warning("%s: %s; what is loaded stays loaded", name, problem)
            for name in self._models.keys() - found.keys():
                self._models[name].removed()
                self._forget(name)

    async def aclose(self) -> None:
        """Stop all tasks and free all models; requests in flight fail."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._loader.shutdown, wait=True, cancel_futures=True)
        for engine in self._engines:
            await engine.aclose()
        self._entries.clear()
        self._engines = ()

    # Helpers

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.scan()
            except ConfigurationError as error:
                if error.message != self._problem:
                    logger.warning("%s; the loaded models stay loaded", error)
                self._problem = error.message
            except Exception as error:  # what is loaded goes on being served
                problem = f"the scan for models failed: {type(error).__name__}: {error}"[:500]
                if problem != self._problem:
                    logger.exception("the scan for models failed")
                self._problem = problem
            else:
                self._problem = ""
            self._advance()
            await self.announce()

    def _advance(self) -> None:
        """Start the loads and unloads that are due now."""
        for name, lifecycle in self._models.items():
            for version in lifecycle.take_unloads():
                self._spawn(self._unload(name, version), f"unloading {name}@{version}")
            for version in lifecycle.take_changes():
                entry = self._entries[name][version]
                self._spawn(self._relabel(name, version, entry), f"relabelling {name}@{version}")
        if not self._loading:
            now = asyncio.get_running_loop().time()
            for name in sorted(self._models):
                taken = self._models[name].take_load(now)
                if taken is not None:
                    self._loading = True
                    self._spawn(self._load(name, *taken), f"loading {name}@{taken[0]}")
                    break
        infos = (self._models[name].info() for name in sorted(self._models))
        self._infos = tuple(info for info in infos if info is not None)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _load(self, name: str, version: int, files: str) -> None:
        now = asyncio.get_running_loop().time
        lifecycle = self._models[name]
        logger.info("loading %s@%d", name, version)
        started = now()
        try:
            loaded = await self._loaded(name, version, files)
        except Exception as error:
            failure = LoadFailure.of(error, self._source.place)
            if self._started or failure.unforeseen:  # else `start` raises it
                text, trace = failure.text, error if failure.unforeseen else None
                logger.error("%s@%d cannot be loaded: %s", name, version, text, exc_info=trace)  # noqa: TRY400
            self._metrics.of(name).load_failures.inc()
            # At the start the next lower version is loaded instead, and nothing is waited for.
            tried = None if failure.passing and self._started else files
            lifecycle.failed(version, failure.text[:_MAX_ERROR], files=tried, now=now())
        else:
            served = ServedVersion(
                model=name,
                version=str(version),
                labels=loaded.labels,
                own_labels=loaded.own_labels,
                engine=loaded.engine,
                digest=loaded.meta.get("digest", ""),
                task=loaded.task,
                reader=loaded.reader,
            )
            self._entries.setdefault(name, {})[version] = VersionHandle(served, loaded.meta)
            self._engines += (loaded.engine,)
            lifecycle.loaded(version)
            logger.info("serving %s@%d, loaded in %.1f s", name, version, now() - started)
        self._loading = False
        self._forget(name)
        self._advance()
        await self.announce()

    async def _loaded(self, name: str, version: int, files: str) -> LoadedModel:
        def load() -> tuple[LoadedModel, str]:
            loaded = self._load_files(self._source.files(name, version))
            return loaded, self._source.fingerprint(name, version)

        job = asyncio.get_running_loop().run_in_executor(self._loader, load)
        try:
            loaded, after = await asyncio.shield(job)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: free what it made.
            for result in await asyncio.gather(job, return_exceptions=True):
                if isinstance(result, tuple):
                    await result[0].engine.aclose()
            raise
        if after != files:
            await loaded.engine.aclose()
            raise ConfigurationError("its files changed while it was being loaded")
        return loaded

    async def _relabel(self, name: str, version: int, entry: VersionHandle) -> None:
        """Use the labels that a loaded version's files have now; else keep those that it has."""
        problem = ""
        try:
            files = await asyncio.to_thread(self._source.files, name, version)
            entry.served = relabelled(entry.served, files)
        except (ConfigurationError, OSError) as error:
            problem = str(error)[:_MAX_ERROR]
            logger.warning("%s@%d: %s", name, version, problem)
        if (lifecycle := self._models.get(name)) is not None:
            lifecycle.relabelled(version, problem)
        await self.announce()

    async def _unload(self, name: str, version: int) -> None:
        entry = self._entries[name][version]
        await self.announce()
        await asyncio.sleep(self._lease_s)
        del self._entries[name][version]
        try:
            async with asyncio.timeout(_MAX_HOLD_S):
                await entry.unused.wait()
        except TimeoutError:
            logger.warning(
                "%s@%d is unloaded although %d requests still use it", name, version, entry.in_use
            )
        engine = entry.served.engine
        await engine.aclose()
        self._engines = tuple(each for each in self._engines if each is not engine)
        del entry, engine
        await asyncio.get_running_loop().run_in_executor(self._loader, gc.collect)
        self._models[name].unloaded(version)
        logger.info("unloaded %s@%d", name, version)
        self._forget(name)
        self._advance()
        await self.announce()

    def _forget(self, name: str) -> None:
        if self._models[name].finished:
            del self._models[name]
            self._entries.pop(name, None)

    def _served_text(self) -> str:
        served = [f"{info.name}@{version}" for info in self._infos for version in info.versions]
        return (
            f"this worker has {', '.join(served[:10])}"
            if served
            else "this worker serves nothing now"
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cut(text: str) -> str:
    if len(text.encode()) <= _MAX_META_BYTES:
        return text
    return text.encode()[: _MAX_META_BYTES - len(_CUT)].decode(errors="ignore") + _CUT
