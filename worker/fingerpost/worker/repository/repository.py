"""The models that a worker serves, kept in step with what stands on disk; a `ModelManager`."""

from __future__ import annotations

import asyncio
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError, InvalidRequest, UnknownModel
from fingerpost.worker.repository.handle import VersionHandle
from fingerpost.worker.repository.lifecycle import Lifecycle
from fingerpost.worker.repository.manager import ServedVersion
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

# A request lasts ten minutes at most (`admission`); a version that is held for longer goes.
_MAX_HOLD_S: Final = 600.0


class ModelRepository:
    """Looks at a source again and again, loads and unloads; handlers `use` what is there.

    One version is loaded at a time, in a thread of low priority. A version is served once it is
    warm; one that is to go is first taken out of what is told, then still served to those who ask
    for it by number for `lease_s`, then held until its last request has ended, then unloaded.

    Args:
        source: where the models stand.
        load: makes a warm engine from a version's files, blocking; called in a thread.
        metrics: counts failed loads.
        poll_s: seconds between two looks; 0 looks only once.
        lease_s: for how long a client may go on asking for what it was told.
        announce: tells the registry what is served now, after each look, load and unload.
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

    # A `ModelManager`

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
        """See `ModelManager`, as for all up to `engines`."""
        return self._infos

    def acquire(self, reference: ModelReference) -> VersionHandle:
        """The version asked for, held within the `with` block."""
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
                version = max(entries)  # the model goes; its clients do not know it yet
            if version in entries:
                return entries[version]
        raise UnknownModel(f"{str(reference)!r} is not served here; {self._served_text()}")

    def statuses(self, model: str) -> tuple[VersionStatus, ...]:
        """Every version, newest first."""
        return self.lifecycle(model).statuses()

    def model_names(self) -> tuple[str, ...]:
        """All models' names, those among them of which nothing could be loaded."""
        return tuple(sorted(self._models))

    def engines(self) -> tuple[Engine, ...]:
        """All in memory, those that are being unloaded among them."""
        return self._engines

    # For operators

    def meta(self, model: str) -> dict[str, str]:
        """Facts about the default version, and under `load-error` what is wrong."""
        lifecycle = self.lifecycle(model)
        entry = self._entries.get(model, {}).get(lifecycle.default or 0)
        meta = dict(entry.meta) if entry is not None else {}
        if problems := self.problems(model):
            text = " ".join("; ".join(problems).split())
            meta["load-error"] = text.encode()[:400].decode(errors="ignore")  # Consul takes 512
        return meta

    def default_version(self, model: str) -> str | None:
        """The version for requests that name none. Raises `UnknownModel`."""
        default = self.lifecycle(model).default
        return None if default is None else str(default)

    def problems(self, model: str) -> tuple[str, ...]:
        """What is wrong with a model. Raises `UnknownModel`."""
        own = self.lifecycle(model).problems()
        return (*own, self._problem) if self._problem else own

    # For `orders`

    def lifecycle(self, model: str) -> Lifecycle:
        """One model's. Raises `UnknownModel`."""
        lifecycle = self._models.get(model)
        if lifecycle is None:
            raise UnknownModel(f"{model!r} is not served here; {self._served_text()}")
        return lifecycle

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Act until it is so."""
        self._advance()
        while not condition():
            await self._changed.wait()

    # Running

    async def start(self) -> None:
        """Look, and load all that is wanted; then go on looking.

        Raises:
            ConfigurationError: nothing can be served.
        """
        await self.scan()
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
            logger.error("started without all that is wanted: %s", problem)
        self._started = True
        if self._poll_s:
            self._spawn(self._watch(), "watching the models")

    async def scan(self) -> None:
        """Look at the source now.

        Raises:
            ConfigurationError: it cannot be looked at; what is served stays.
        """
        async with self._scanning:
            found = await asyncio.to_thread(self._source.scan)
            first = not self._models
            for name, each in found.items():
                lifecycle = self._models.get(name)
                if lifecycle is None:
                    lifecycle = self._models[name] = Lifecycle(name, trust_first_scan=first)
                lifecycle.scanned(each.versions, each.settings, each.error)
            for name in self._models.keys() - found.keys():
                self._models[name].removed()
                self._forget(name)

    async def aclose(self) -> None:
        """End all tasks and free all models; requests in flight fail."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._loader.shutdown, wait=True, cancel_futures=True)
        for engine in self._engines:
            await engine.aclose()
        self._entries.clear()
        self._engines = ()

    # Inside

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.scan()
            except ConfigurationError as error:
                if error.message != self._problem:
                    logger.warning("%s; what is loaded stays", error)
                self._problem = error.message
            except Exception:  # what is loaded goes on being served
                logger.exception("looking for models failed")
            else:
                self._problem = ""
            self._advance()
            await self.announce()

    def _advance(self) -> None:
        """Begin what is to be done now."""
        for name, lifecycle in self._models.items():
            for version in lifecycle.take_unloads():
                self._spawn(self._unload(name, version), f"unloading {name}@{version}")
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
            known = isinstance(error, ConfigurationError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            if self._started or not known:  # else `start` tells it
                trace = None if known else error
                logger.error("%s@%d cannot be loaded: %s", name, version, text, exc_info=trace)  # noqa: TRY400
            self._metrics.of(name).load_failures.inc()
            lifecycle.failed(version, text[:500], files=files, now=now())
        else:
            served = ServedVersion(
                model=name, version=str(version), labels=loaded.labels, engine=loaded.engine
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
            # No thread can be cancelled: what it makes is freed.
            for result in await asyncio.gather(job, return_exceptions=True):
                if isinstance(result, tuple):
                    await result[0].engine.aclose()
            raise
        if after != files:
            await loaded.engine.aclose()
            raise ConfigurationError("its files changed while it was loaded")
        return loaded

    async def _unload(self, name: str, version: int) -> None:
        entry = self._entries[name][version]
        await self.announce()
        await asyncio.sleep(self._lease_s)
        del self._entries[name][version]
        try:
            async with asyncio.timeout(_MAX_HOLD_S):
                await entry.unused.wait()
        except TimeoutError:
            logger.warning("%s@%d: %d requests do not end", name, version, entry.in_use)
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
        return f"this worker has {', '.join(served[:10])}" if served else "nothing is, now"

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
