"""An entry is the process that it names; the same tests run on every registry."""

from __future__ import annotations

import asyncio

from tests.support.snapshots import ids
from tests.support.waiting import until


async def test_the_entry_of_a_process_whose_port_another_one_has_leaves_the_list(
    registry, worker, service
):
    worker.boot_id = 7
    registration = await registry.register(worker.instance(service, boot_id=7))
    await asyncio.sleep(1.2)  # a check has passed
    assert ids(await registry.list(service)) == [registration.instance.id]
    worker.boot_id = 8
    await until(lambda: _is_empty(registry, service), within_s=5)
    await registration.deregister()


async def test_a_new_process_removes_what_is_left_at_its_address(
    registry, worker, neighbour, service, url, connect
):
    other, elsewhere = f"{service}-b", f"{service}-c"
    dead = connect(url)

    async def entry_of_the_dead(instance):
        await (await dead.register(instance)).stop()

    for name, nonce, boot_id in [(service, "1", 7), (service, "2", 8), (other, "1", 7)]:
        await entry_of_the_dead(worker.instance(name, nonce, boot_id=boot_id))
    next_door = {"http": neighbour.port}  # it answers: an entry that fails its check is not listed
    await entry_of_the_dead(worker.instance(elsewhere, "1", boot_id=7, ports=next_door))
    await entry_of_the_dead(worker.instance(service, "foreign"))
    mine = await registry.register(worker.instance(service, "3", boot_id=9))
    also_mine = await registry.register(worker.instance(other, "3", boot_id=9))
    removed = await registry.remove_stale(mine.instance)
    port = worker.port
    assert sorted(removed) == sorted(
        f"{name}-127.0.0.1-{port}-{nonce}"
        for name, nonce in [(service, "1"), (service, "2"), (other, "1")]
    )
    assert await registry.remove_stale(mine.instance) == ()
    left = {*ids(await registry.list(service)), *ids(await registry.list(other))}
    assert left == {
        mine.instance.id,
        also_mine.instance.id,
        f"{service}-127.0.0.1-{port}-foreign",
    }
    assert len(ids(await registry.list(elsewhere))) == 1
    await mine.deregister()
    await also_mine.deregister()


async def _is_empty(registry, service):
    return (await registry.list(service)).instances == ()
