"""Commands, beside workers and proxies that answer whatever an attacker likes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time

import psutil
import pytest

from tests.support.hostile import ENDLESS, FIXED, serving_hostile
from tests.support.processes import FINGERPOST

_ANSWERS = {
    name: (FIXED[name], b"") for name in ("redirect", "compressed", "nested JSON", "invalid UTF-8")
} | {name: ENDLESS[name] for name in ("header fields", "newlines", "a body", "chunks")}
_MB = 1e6


async def run(*arguments: str) -> tuple[int, str, str, float]:
    """A command's exit status, output, messages, and the most memory that it had, in MB."""
    process = await asyncio.create_subprocess_exec(
        *FINGERPOST, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    seen = psutil.Process(process.pid)
    most = 0.0

    async def watch() -> None:
        nonlocal most
        while True:
            try:
                most = max(most, seen.memory_info().rss / _MB)
            except psutil.Error:
                return
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(40):
            out, said = await process.communicate()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert process.returncode is not None
    return process.returncode, out.decode(), said.decode(), most


@pytest.mark.parametrize("name", _ANSWERS)
async def test_status_beside_a_hostile_worker(name: str) -> None:
    async with serving_hostile(*_ANSWERS[name]) as hostile:
        started = time.monotonic()
        code, out, said, most_mb = await run(
            "status", "--json", "--registry", f"static://{hostile.address}?model=digits"
        )
        assert len(hostile.requests) == 1, "nothing was followed, nothing asked again"
    assert code == 0, said
    (service,) = json.loads(out)
    assert [each["load"] for each in service["workers"]] == [None]
    assert most_mb < 200
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("name", _ANSWERS)
async def test_commands_with_a_hostile_proxy(name: str) -> None:
    async with serving_hostile(*_ANSWERS[name]) as hostile:
        code, _, said, most_mb = await run("status", "--proxy", f"http://{hostile.address}")
    assert code == 1
    assert hostile.address in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1, said
    assert most_mb < 200
