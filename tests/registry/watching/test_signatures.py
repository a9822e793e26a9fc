from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.address_policy import RejectionReason
from fingerpost.registry.entry_signature import sign_entry
from fingerpost.registry.watching import signatures as module
from fingerpost.registry.watching.signatures import EntrySignatures
from fingerpost.security.keys import SigningKey
from fingerpost.security.signing.trusted_keys import TrustedKeysFile

KEY = SigningKey.generate()


def instance(number=1):
    return Instance(
        id=f"flowers-{number}",
        service="flowers",
        host="10.0.0.7",
        ports={"http": 8501},
        models=(ModelInfo(name="flowers", versions=("1",)),),
        boot_id=number,
    )


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(KEY.public.encode())
    return path


@pytest.fixture
def signatures(keys, clock):
    return EntrySignatures(TrustedKeysFile(keys), wall=clock)


@pytest.fixture
def counted(monkeypatch):
    """The ids of the entries whose signature was verified."""
    seen = []

    def verdict(entry, keys):
        seen.append(entry.id)
        return real(entry, keys)

    real = module.entry_verdict
    monkeypatch.setattr(module, "entry_verdict", verdict)
    return seen


def reason(signatures, entry):
    rejection = signatures.rejection(entry)
    return rejection and rejection.reason


async def test_an_entry_is_verified_once_and_again_after_a_change(signatures, counted):
    entry = sign_entry(instance(), KEY, expires=2000)
    for _ in range(3):
        await signatures.verify("flowers", [entry])
        assert reason(signatures, entry) is None
    assert counted == ["flowers-1"]
    changed = msgspec.structs.replace(entry, weight=7)
    await signatures.verify("flowers", [changed])
    assert reason(signatures, changed) is RejectionReason.WRONG_SIGNATURE
    assert len(counted) == 2


async def test_an_impostor_with_an_honest_workers_id_takes_nothing_from_it(signatures, counted):
    honest = sign_entry(instance(), KEY, expires=2000)
    impostor = msgspec.structs.replace(honest, host="10.6.6.6")
    for entries in ([honest, impostor], [impostor, honest]):
        await signatures.verify("flowers", entries)
        assert reason(signatures, honest) is None
        assert reason(signatures, impostor) is RejectionReason.WRONG_SIGNATURE
    assert counted.count("flowers-1") <= 6


async def test_a_copy_of_an_old_entry_ends_with_its_signature(signatures, clock):
    entry = sign_entry(instance(), KEY, expires=2000)
    await signatures.verify("flowers", [entry])
    clock.now = 2029.0  # the clocks of two machines differ by some seconds
    assert reason(signatures, entry) is None
    clock.now = 2031.0
    rejection = signatures.rejection(entry)
    assert rejection.reason is RejectionReason.SIGNATURE_EXPIRED
    assert "ended 31 s ago" in rejection.message
    clock.now = 1999.0  # the reader's clock was wrong, and is right again
    assert reason(signatures, entry) is None


async def test_a_key_that_is_withdrawn_or_added_counts_from_the_next_poll(signatures, keys):
    other = SigningKey.generate()
    entry = sign_entry(instance(), KEY, expires=2000)
    await signatures.verify("flowers", [entry])
    keys.write_bytes(other.public.encode())
    await signatures.verify("flowers", [entry])
    rejection = signatures.rejection(entry)
    assert rejection.reason is RejectionReason.UNKNOWN_KEY
    assert KEY.kid in rejection.message
    assert str(keys) in rejection.message
    keys.write_bytes(other.public.having(KEY.public).encode())
    await signatures.verify("flowers", [entry])
    assert reason(signatures, entry) is None


async def test_unsigned_entries_are_left_out_with_the_remedy(signatures):
    rejection = signatures.rejection(instance())
    assert rejection.reason is RejectionReason.UNSIGNED
    assert "--registration-key" in rejection.message


async def test_entries_that_are_gone_are_forgotten(signatures, counted):
    entry = sign_entry(instance(), KEY, expires=2000)
    await signatures.verify("flowers", [entry])
    await signatures.verify("flowers", [])
    await signatures.verify("flowers", [entry])
    assert len(counted) == 2


async def test_a_thousand_workers_do_not_hold_up_the_loop(signatures):
    entries = [sign_entry(instance(number), KEY, expires=2000) for number in range(1, 1001)]
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await asyncio.sleep(0)
    await signatures.verify("flowers", entries)
    assert turns >= 1000 / 8
    # What was verified is only compared.
    before = time.process_time()
    await signatures.verify("flowers", entries)
    assert not any(map(signatures.rejection, entries))
    assert time.process_time() - before < 0.05
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
