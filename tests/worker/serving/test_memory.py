"""One budget for all bodies: what is over it is refused, and all of it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from fingerpost.errors import Overloaded
from fingerpost.worker.config import RequestConfig
from fingerpost.worker.serving import uploads
from fingerpost.worker.serving.memory import BodyMemory, machine_memory
from tests.support.colours import encoded
from tests.support.http import post_request, raw_connection, read_answer
from tests.support.rig import Rig, serving

IMAGE = encoded("red")
CLASSIFY = "/v1/classify/colours"


async def status_of(rig: Rig, body: bytes = IMAGE) -> tuple[int, dict[str, str], bytes]:
    async with raw_connection(rig.port) as (reader, writer):
        writer.write(post_request(CLASSIFY, body))
        return await read_answer(reader)


async def until(rig: Rig, used: int) -> None:
    async with asyncio.timeout(10):
        while rig.service.memory.used != used:
            await asyncio.sleep(0.01)


async def test_unfinished_bodies_have_a_budget_and_give_it_back() -> None:
    limits = RequestConfig(max_bytes=100_000, max_memory_bytes=300_000)
    async with serving(requests=limits) as rig, contextlib.AsyncExitStack() as stack:
        whole = post_request(CLASSIFY, IMAGE + bytes(99_000 - len(IMAGE)))
        for _ in range(3):
            _, writer = await stack.enter_async_context(raw_connection(rig.port))
            writer.write(whole[:-1])
        await until(rig, 3 * 98_999)
        status, headers, body = await status_of(rig, IMAGE + bytes(10_000))
        assert (status, headers["retry-after"]) == (429, "1")
        error = json.loads(body)["error"]
        assert (error["code"], error["retryable"]) == ("overloaded", True)
        assert "300,000 is the most (--max-memory)" in error["message"]
        assert (await status_of(rig))[0] == 200  # there is room for a small one
        await stack.aclose()
        await until(rig, 0)
        assert (await status_of(rig, IMAGE + bytes(10_000)))[0] == 200
        assert rig.service.memory.used == 0


async def test_one_address_has_so_many_unfinished_uploads_and_others_go_on() -> None:
    async with (
        serving(requests=RequestConfig(max_uploads_per_client=3)) as rig,
        contextlib.AsyncExitStack() as stack,
    ):
        part = post_request(CLASSIFY, IMAGE)[:-1]
        for _ in range(3):
            _, writer = await stack.enter_async_context(raw_connection(rig.port))
            writer.write(part)
        await until(rig, 3 * (len(IMAGE) - 1))
        reader, writer = await stack.enter_async_context(raw_connection(rig.port))
        writer.write(part)
        status, _, body = await read_answer(reader)
        assert status == 429
        assert "3 uploads from 127.0.0.1 are unfinished" in json.loads(body)["error"]["message"]
        assert (await status_of(rig))[0] == 200  # bodies that come at once are not unfinished


def test_the_addresses_of_an_ipv6_network_have_the_uploads_of_one() -> None:
    memory = BodyMemory(RequestConfig(max_uploads_per_client=2))
    with memory.upload("2001:db8::1"), memory.upload("2001:db8::2"):
        with (
            pytest.raises(Overloaded, match="2 uploads from 2001:db8::/64 are"),
            memory.upload("2001:db8::3"),
        ):
            pass
        with memory.upload("2001:db8:0:1::3"):
            pass
    assert not memory._uploads


async def test_an_upload_that_drips_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_RATE_S", 0.5)
    async with serving(requests=RequestConfig(min_upload_rate=200)) as rig:
        whole = post_request(CLASSIFY, IMAGE + bytes(1_000))
        cut = len(whole) - 1_000
        async with raw_connection(rig.port) as (reader, writer):
            writer.write(whole[:cut])
            answer = asyncio.create_task(read_answer(reader))
            while not answer.done():
                writer.write(b"x")  # 20 a second
                await asyncio.sleep(0.05)
            status, _, body = await answer
            assert status == 400
            assert "fewer than 200 a second" in json.loads(body)["error"]["message"]
        async with raw_connection(rig.port) as (reader, writer):
            for at in range(0, len(whole), 40):  # 800 a second
                writer.write(whole[at : at + 40])
                await asyncio.sleep(0.05)
            assert (await read_answer(reader))[0] == 200


def test_the_default_is_an_eighth_of_the_memory() -> None:
    assert BodyMemory(RequestConfig()).most == max(machine_memory() // 8, 128_000_000)
    assert BodyMemory(RequestConfig(max_bytes=10**15)).most == 2 * 10**15
    assert 10**8 < machine_memory() < 10**14
