"""Self-preservation, address policy and sharing with a registry and workers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.errors import RegistryError
from fingerpost.registry import Instance, LoadReport, ModelInfo, WorkerState
from fingerpost.registry.address_policy import AddressPolicy, RejectionReason
from fingerpost.registry.http.app import bind, json_response, serve

MODELS = (ModelInfo(name="flowers", versions=("1",)),)


@pytest.fixture(autouse=True)
async def _limit():
    async with asyncio.timeout(30):
        yield


class LoadWorker:
    """A worker that answers its check and `/load`."""

    def __init__(self):
        self.state = WorkerState.READY
        self.boot_id = 4711
        self.check = 200
        self.hang = False
        self.port = 0
        self._runner = None

    async def start(self):
        app = web.Application()
        app.router.add_get("/health/engine", self._engine)
        app.router.add_get("/load", self._load)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", self.port))
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self):
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def instance(self, service):
        return Instance(
            id=f"{service}-{self.port}",
            service=service,
            host="127.0.0.1",
            ports={"http": self.port},
            models=MODELS,
            boot_id=4711,
        )

    async def _engine(self, _):
        return web.Response(status=self.check)

    async def _load(self, _):
        if self.hang:
            await asyncio.Event().wait()
        return json_response(
            LoadReport(rif=0, slots=1, state=self.state, boot_id=self.boot_id, seq=1)
        )


@pytest.fixture
async def trio(registry, service):
    """Three registered workers whose registrations do not come back, and the watch of them."""
    workers = [await LoadWorker().start() for _ in range(3)]
    registrations = [await registry.register(each.instance(service)) for each in workers]
    for each in registrations:
        await each.stop()  # the entry stays, and nobody looks after it
    watch = registry.watch(service)
    await watch.ready(5)
    assert len(watch.view.instances) == 3
    yield workers, registrations, watch
    await registry.release(service)
    for registration, worker in zip(registrations, workers, strict=True):
        await worker.stop()
        with contextlib.suppress(RegistryError):
            await registration.deregister()


async def _forget(raw, url, registrations):
    """What a client agent does that restarts without its memory: entries go, one by one."""
    for each in registrations:
        path = f"{url}/v1/agent/service/deregister/{each.instance.id}"
        async with raw.put(path) as answer:
            assert answer.status == 200


async def test_workers_that_are_well_stay_when_the_registry_loses_them(
    trio, registry, service, raw, url
):
    workers, registrations, watch = trio
    workers[1].boot_id = 1  # another process at that port
    workers[2].state = WorkerState.DRAINING
    await _forget(raw, url, registrations)
    well = registrations[0].instance
    await until(lambda: watch.view.instances == (well,) and watch.suspicions == 1)
    assert not (await registry.list(service)).instances
    assert watch.view.retained == (well.id,)
    await workers[0].stop()
    await until(lambda: watch.view.instances == (), within_s=3)
    assert not watch.view.known


async def test_one_that_hangs_is_out_of_use_and_comes_back(trio, raw, url):
    workers, registrations, watch = trio
    workers[2].hang = True
    await _forget(raw, url, registrations)
    await until(lambda: len(watch.view.instances) == 2 and watch.view.retained)
    workers[2].hang = False
    await until(lambda: len(watch.view.instances) == 3, within_s=5)


async def test_the_registrys_list_is_believed_again_when_they_are_back(trio, registry, raw, url):
    _, registrations, watch = trio
    await _forget(raw, url, registrations)
    await until(lambda: len(watch.view.retained) == 3)
    again = [await registry.register(each.instance) for each in registrations]
    await until(lambda: not watch.view.retained)
    assert len(watch.view.instances) == 3
    for each in again:
        await each.deregister()


async def test_a_drain_of_all_applies_at_once_though_they_answer_ready(trio):
    _, registrations, watch = trio
    for each in registrations:
        await each.drain("leaving")
    await until(lambda: watch.view.instances == (), within_s=2)
    assert watch.suspicions == 0
    assert watch.view.known


async def test_a_check_that_the_worker_itself_fails_applies_at_once(trio):
    workers, _, watch = trio
    for each in workers:
        each.check = 503
    await until(lambda: watch.view.instances == (), within_s=5)
    assert (watch.suspicions, watch.probes) == (0, 0)


async def test_dead_workers_are_dropped_though_all_die_at_once(trio):
    workers, _, watch = trio
    for each in workers:
        await each.stop()
    await until(lambda: watch.view.instances == (), within_s=5)


# Address policy


async def test_what_is_not_admitted_is_refused_and_counted(
    url, connect, registry, worker, service, caplog
):
    registration = await registry.register(worker.instance(service))
    closed = connect(url, address_policy=AddressPolicy.parse(["10.0.0.0/8"]))
    for _ in range(2):
        snapshot = await closed.list(service)
        assert snapshot.instances == ()
        assert snapshot.known
        assert snapshot.withdrawn == (registration.instance.id,)
    assert closed.rejected == 1
    assert closed.rejected_entries.by_reason == {RejectionReason.OUTSIDE_NETWORKS: 1}
    assert caplog.text.count("outside the allowed networks") == 1
    assert (await connect(url).list(service)).instances == (registration.instance,)
    await registration.deregister()


# Sharing


async def test_the_last_release_ends_the_watch(registry, service):
    watch = registry.watch(service)
    assert registry.watch(service) is watch
    await registry.release(service)
    assert watch.running
    await registry.release(service)
    assert not watch.running
    await registry.release(service)
    await registry.release("nobody-watches-this")
    assert registry.watch(service) is not watch
