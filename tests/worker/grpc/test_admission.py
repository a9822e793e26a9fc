"""Who and what is let in over gRPC: leases, limits, deadlines, bad images."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from fingerpost.registry.grpc.status import status_code
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.worker.config import RequestConfig
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.telemetry.access_log import AccessLog
from tests.support.bad_images import BAD
from tests.support.leases import lease, verifier, wrong_leases
from tests.support.optional import not_none
from tests.support.rig import Rig, serving
from tests.support.waiting import until
from tests.worker.grpc.test_open_inference import INFER, PB2, call, one_image

ONE = one_image().SerializeToString()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


@asynccontextmanager
async def silent(rig: Rig, **options: Any) -> AsyncIterator[Any]:
    """A call whose message is not sent yet."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        yield channel.stream_unary(INFER)(timeout=20, **options)


def reason(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, Any]]:
    """The code in an error's details, and its trailers."""
    trailer = dict(not_none(error.trailing_metadata()))
    status = message_class("google.rpc.Status").FromString(trailer["grpc-status-details-bin"])
    info = message_class("google.rpc.ErrorInfo")()
    assert status.details[0].Unpack(info)
    return info.reason.lower(), trailer


async def test_a_lease_is_wanted_before_the_message() -> None:
    async with serving(grpc=True, leases=verifier()) as rig:
        for token, status, code in wrong_leases().values():
            if code == "lease_wrong_service":
                continue
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(rig, ONE, metadata=bearer(token))
            assert reason(caught.value)[0] == code
            assert (caught.value.code() is grpc.StatusCode.UNAUTHENTICATED) == (status == 401)
        async with silent(rig) as sent:
            assert await sent.code() is grpc.StatusCode.UNAUTHENTICATED
        assert rig.backend.seen == 0
        with pytest.raises(grpc.aio.AioRpcError, match="another service") as caught:
            await call(rig, ONE, metadata=bearer(lease("flowers")))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert await call(rig, ONE, metadata=bearer(lease()))


async def test_an_overloaded_worker_says_when_to_come_back() -> None:
    async with serving(grpc=True, batching=BatchingConfig(max_batch=1, max_queue=1)) as rig:
        rig.backend.gate.clear()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
            infer = channel.unary_unary(INFER)
            held = [infer(ONE, timeout=20) for _ in range(4)]
            await until(lambda: sum(each.done() for each in held) >= 1)
            refused = next(each for each in held if each.done())
            assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert int(dict(not_none(await refused.trailing_metadata()))["grpc-retry-pushback-ms"])
            rig.backend.gate.set()
            for each in held:
                await each.code()


async def test_as_many_calls_as_requests_are_in_flight_at_once() -> None:
    async with serving(grpc=True, requests=RequestConfig(max_in_flight=1)) as rig:
        async with silent(rig):
            await until(lambda: rig.service.admission.uploads == 1)
            with pytest.raises(grpc.aio.AioRpcError, match="1 requests are in flight here"):
                await call(rig, ONE)
        await until(lambda: rig.service.admission.uploads == 0)
        assert await call(rig, ONE)


async def test_a_deadline_ends_a_call_and_its_image(rig: Rig) -> None:
    rig.backend.gate.clear()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(INFER)(ONE, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: rig.rif == 0)
    rig.backend.gate.set()
    request = one_image()
    request.parameters["timeout"].int64_param = 1  # a microsecond
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(rig, request.SerializeToString())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_for_another_process_goes_elsewhere(rig: Rig) -> None:
    assert await call(rig, ONE, metadata=(("fingerpost-boot-id", "1"),))
    with pytest.raises(
        grpc.aio.AioRpcError, match="meant for the process with boot id 2"
    ) as caught:
        await call(rig, ONE, metadata=(("fingerpost-boot-id", "2"),))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_class_is_that_of_the_metadata(rig: Rig) -> None:
    assert await call(rig, ONE, metadata=(("fingerpost-class", "batch"),))
    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
        await call(rig, ONE, metadata=(("fingerpost-class", "other"),))


async def test_a_message_over_the_limit_is_not_read() -> None:
    async with serving(grpc=True, requests=RequestConfig(max_bytes=100_000)) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(rig, bytes(300_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(rig, ONE)
        await until(lambda: rig.service.memory.used == 0)


async def test_as_many_connections_as_the_limit() -> None:
    own: Any = [("grpc.use_local_subchannel_pool", 1)]
    limits = ConnectionConfig(max_connections=1)
    async with serving(grpc=True, connections=limits) as rig:
        target = f"127.0.0.1:{rig.grpc_port}"
        async with (
            grpc.aio.insecure_channel(target, options=own) as first,
            grpc.aio.insecure_channel(target, options=own) as second,
        ):
            assert await first.unary_unary(INFER)(ONE, timeout=20)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await second.unary_unary(INFER)(ONE, timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await first.unary_unary(INFER)(ONE, timeout=20)


async def test_a_compressed_message_is_refused(rig: Rig) -> None:
    """One of 64 KB could grow to 64 MB."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(rig, bytes(1_000_000), compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_that_does_not_come_holds_nothing_for_long() -> None:
    limits = RequestConfig(max_bytes=100_000, body_timeout_s=0.2)
    async with serving(grpc=True, requests=limits) as rig, silent(rig) as sent:
        assert await sent.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "did not arrive within 0.2 s" in not_none(await sent.details())
        assert rig.service.admission.uploads == 0


async def test_a_call_without_a_message(rig: Rig) -> None:
    async with silent(rig) as sent:
        await sent.done_writing()
        assert "ended without a message" in not_none(await sent.details())


async def test_a_client_that_leaves_frees_its_image(rig: Rig) -> None:
    rig.backend.gate.clear()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        sent = channel.unary_unary(INFER)(ONE)
        await until(lambda: rig.rif == 1)
        sent.cancel()
        await until(lambda: rig.rif == 0)
    rig.backend.gate.set()
    assert rig.service.memory.used == 0


async def test_a_call_is_in_the_access_log(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def log(metrics: Any) -> AccessLog:
        return AccessLog(str(path), dropped=metrics.access_log_dropped)

    async with serving(grpc=True, access_log=log) as rig:
        await call(rig, ONE)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(rig, b"\xff")
        await until(lambda: path.exists() and path.read_text().count("\n") == 2)
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["path"], first["status"], first["images"]) == (INFER, 200, 1)
    assert (first["model"], first["client"], first["body_bytes"]) == (
        "colours",
        "127.0.0.1",
        len(ONE),
    )
    assert (second["status"], second["error"]) == (400, "invalid_request")


async def test_the_table_of_bad_images() -> None:
    async with serving(grpc=True, images=ImageConfig()) as rig:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
            infer = channel.unary_unary(INFER)
            for name, (image, kind) in BAD.items():
                request = PB2.ModelInferRequest(model_name="colours")
                wanted = request.inputs.add(name="image", datatype="BYTES", shape=[1])
                wanted.contents.bytes_contents.append(image)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await infer(request.SerializeToString(), timeout=30)
                assert caught.value.code() is status_code(kind("")), name
                assert reason(caught.value)[0] == kind.code, name
                assert "input 'image', image 0" in not_none(caught.value.details()), name
            assert await asyncio.wait_for(infer(ONE), 20)
        assert rig.service.memory.used == 0


async def test_calls_are_counted_by_method_and_status(rig: Rig) -> None:
    await call(rig, ONE)
    with pytest.raises(grpc.aio.AioRpcError):
        await call(rig, b"\xff")
    async with aiohttp.ClientSession() as session, session.get(f"{rig.url}/metrics") as response:
        text = await response.text()
    for code in ("OK", "INVALID_ARGUMENT"):
        line = f'fingerpost_worker_grpc_calls_total{{code="{code}",method="ModelInfer"}} '
        assert re.search(f"{re.escape(line)}[1-9]", text)
