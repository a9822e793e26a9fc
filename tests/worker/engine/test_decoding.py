"""Decoders at work count, also where nobody waits for them any more."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from fingerpost.registry import WorkerState
from fingerpost.worker.config import ModelsConfig
from tests.support.colours import encoded
from tests.support.hostile_images import HOSTILE
from tests.support.rig import serving
from tests.support.waiting import until


async def test_an_image_that_is_decoded_for_nobody_is_in_flight_and_a_stuck_worker_says_so() -> (
    None
):
    """The dearest image that passes takes seconds; `stall_s` is shorter here than that."""
    slow = HOSTILE["jpeg: 18 refining scans"]()
    async with (
        serving(models=ModelsConfig(decode_threads=2, stall_s=0.3)) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):

        async def asked(path: str) -> tuple[int, dict[str, Any]]:
            async with http.get(path) as response:
                return response.status, await response.json()

        assert (await asked("/load"))[1]["rif"] == 0
        posts = [asyncio.create_task(http.post("/", data=slow)) for _ in range(2)]
        await until(lambda: len(rig.engine.decoding_since()) == 2, "both are being decoded")
        assert (await asked("/health/engine"))[0] == 200
        for post in posts:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        await until(lambda: rig.rif == 0, "both requests have ended")
        assert (await asked("/load"))[1]["rif"] == 2
        await until(
            lambda: not rig.service.engine_healthy(), "all decoders have been at it too long"
        )
        status, told = await asked("/health/engine")
        assert (status, told["status"]) == (503, "stalled")
        assert told["running_s"] >= 0.3
        assert (await asked("/health/ready"))[0] == 503
        assert (await asked("/load"))[1]["state"] == WorkerState.FAILED.value
        await until(rig.service.engine_healthy, "they have done it", within_s=60.0)
        await until(
            lambda: rig.engine.abandoned == 0, "nothing is decoded for nobody", within_s=60.0
        )
        assert (await asked("/load"))[1]["rif"] == 0
        async with http.post("/", data=encoded("blue")) as response:
            assert (await response.json())[0][0] == "blue"


async def test_one_free_decoder_is_enough() -> None:
    slow = HOSTILE["jpeg: 18 refining scans"]()
    async with (
        serving(models=ModelsConfig(decode_threads=2, stall_s=0.1)) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        post = asyncio.create_task(http.post("/", data=slow))
        await until(lambda: len(rig.engine.decoding_since()) == 1, "it is being decoded")
        await asyncio.sleep(0.3)
        assert rig.engine.decoding_since()
        assert rig.service.engine_healthy()
        async with http.post("/", data=encoded("blue")) as response:
            assert (await response.json())[0][0] == "blue"
        post.cancel()
        await asyncio.gather(post, return_exceptions=True)
