"""Signed entries; the same tests run on every registry."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from fingerpost.registry.entry_signature import sign_entry
from fingerpost.registry.watching.signatures import open_signatures
from fingerpost.security.keys import SigningKey

KEY, STRANGER = SigningKey.generate(), SigningKey.generate()


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(KEY.public.encode())
    return str(path)


async def test_only_signed_entries_are_listed_and_the_others_are_named(
    url, connect, keys, worker, service
):
    writer = connect(url)
    reader = connect(url, signatures=open_signatures(keys))
    expires = int(time.time()) + 100
    good = sign_entry(
        worker.instance(service, "good", boot_id=0, zone="rack 7", meta={"device": "cpu"}),
        KEY,
        expires=expires,
    )
    unsigned = worker.instance(service, "unsigned")
    stranger = sign_entry(worker.instance(service, "stranger"), STRANGER, expires=expires)
    changed = msgspec.structs.replace(
        sign_entry(worker.instance(service, "changed"), KEY, expires=expires), weight=50
    )
    old = sign_entry(worker.instance(service, "old"), KEY, expires=int(time.time()) - 100)
    watch = reader.watch(service)
    await watch.ready(5)
    entries = [await writer.register(each) for each in (good, unsigned, stranger, changed, old)]
    async with asyncio.timeout(10):
        async for view in watch:
            assert view.instances in ((), (good,))
            if view.instances:
                break
    listed = await reader.list(service)
    assert listed.instances == (good,)
    why = dict(listed.rejected)
    assert set(why) == {each.id for each in (unsigned, stranger, changed, old)}
    assert "not signed" in why[unsigned.id]
    assert "which is not in" in why[stranger.id]
    assert "changed it" in why[changed.id]
    assert "ended" in why[old.id]
    assert set(why) <= set(listed.withdrawn)
    reasons = reader.rejected_entries.by_reason
    assert {"unsigned", "unknown_key", "wrong_signature", "signature_expired"} <= set(reasons)
    assert len((await writer.list(service)).instances) == 5  # a reader without keys
    for entry in entries:
        await entry.deregister()


async def test_a_signature_that_is_renewed_interrupts_nothing(url, connect, keys, worker, service):
    reader = connect(url, signatures=open_signatures(keys))
    instance, now = worker.instance(service), int(time.time())
    registration = await connect(url).register(sign_entry(instance, KEY, expires=now + 60))
    watch = reader.watch(service)
    await watch.ready(5)
    seen = []
    for life_s in range(61, 66):
        renewed = sign_entry(instance, KEY, expires=now + life_s)
        await registration.update(renewed)
        seen.append((await reader.list(service)).instances)
        assert seen[-1] == (renewed,)
    assert (await watch.ready(5)).instances
    await registration.deregister()
