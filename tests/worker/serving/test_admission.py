"""Admission for every protocol: refused by the headers, counted from them on, always released."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from fingerpost.client.frames import STREAM_TYPE, StreamImage, frame_head
from fingerpost.errors import Draining
from fingerpost.registry import LoadReport, WorkerState
from fingerpost.worker.config import ModelsConfig, RequestConfig
from fingerpost.worker.engine.batching.config import BatchingConfig
from tests.support.colours import encoded
from tests.support.http import read_answer
from tests.support.rig import Rig, serving
from tests.support.waiting import until

IMAGE = encoded("red")
TEXT = base64.b64encode(IMAGE).decode()
TFS = json.dumps({"instances": [{"b64": TEXT}]}).encode()
V2 = json.dumps(
    {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}
).encode()
# Where images go: path, body, how its errors look.
ROUTES = {
    "root": ("/", IMAGE, "own"),
    "classify": ("/v1/classify/colours", IMAGE, "own"),
    "tensorflow serving": ("/v1/models/colours:predict", TFS, "plain"),
    "tensorflow serving, version": ("/v1/models/colours/versions/7:predict", TFS, "plain"),
    "v2": ("/v2/models/colours/infer", V2, "plain"),
}


@contextlib.asynccontextmanager
async def sent(
    rig: Rig, path: str, body: bytes, *, length: int | None = None, **headers: str
) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose body may be shorter than it says; closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    lines = [f"POST {path} HTTP/1.1", "Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def check_error(form: str, headers: dict[str, str], body: bytes) -> None:
    error = json.loads(body)["error"]
    assert isinstance(error, str if form == "plain" else dict)
    LoadReport.from_header(headers["endpoint-load-metrics"])


@pytest.mark.parametrize("route", ROUTES)
async def test_counted_from_the_headers_on_and_released_when_the_client_goes(route: str) -> None:
    path, body, _ = ROUTES[route]
    async with serving() as rig:
        async with sent(rig, path, body[:10], length=len(body)):
            await until(lambda: rig.rif == 1)
        await until(lambda: rig.rif == 0)
        rig.backend.gate.clear()
        async with sent(rig, path, body):
            await until(lambda: rig.engine.queued > 0 or rig.engine.running_s() > 0)
            assert rig.rif == 1
        await until(lambda: rig.rif == 0)
        assert await rig.service.admission.idle(5)


@pytest.mark.parametrize("route", ROUTES)
async def test_released_at_the_deadline(route: str) -> None:
    path, body, form = ROUTES[route]
    async with serving() as rig:
        rig.backend.gate.clear()
        async with sent(rig, path, body, Fingerpost_Deadline_Ms="50") as reader:
            status, headers, text = await read_answer(reader)
        assert status == 504
        check_error(form, headers, text)
        assert rig.rif == 0


@pytest.mark.parametrize("route", ROUTES)
async def test_released_when_the_model_or_the_handler_fails(route: str) -> None:
    path, body, form = ROUTES[route]
    async with serving() as rig:
        rig.backend.broken = True
        async with sent(rig, path, body) as reader:
            status, headers, text = await read_answer(reader)
        assert status == 500
        assert b"out of order" in text
        check_error(form, headers, text)
        assert rig.rif == 0


async def test_a_fault_of_ours_is_500_and_released(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(labels=()) as rig, aiohttp.ClientSession(rig.url) as http:
        async with http.post("/", data=IMAGE) as response:
            assert response.status == 500
            assert (await response.json())["error"]["code"] == "internal"
        assert rig.rif == 0
        async with http.get("/metrics") as response:
            assert 'requests_total{model="colours",status="500"} 1.0' in await response.text()
    assert "POST / failed" in caplog.text


@pytest.mark.parametrize("route", ROUTES)
async def test_expect_is_answered_by_the_headers_alone(route: str) -> None:
    path, _, form = ROUTES[route]
    async with serving(requests=RequestConfig(max_bytes=1_000_000)) as rig:
        wanted = {"Expect": "100-continue"}
        refused = [
            (path, 10_000_000, wanted, 413),
            (path, 10, wanted | {"Content_Encoding": "gzip"}, 415),
            (path, 10, wanted | {"Fingerpost_Deadline_Ms": "-3"}, 504),
            (path, 10, wanted | {"Fingerpost_Deadline_Ms": "soon"}, 400),
            (path, 10, {"Expect": "a miracle"}, 400),
        ]
        if path != "/":
            refused.append((path.replace("colours", "flowers"), 10, wanted, 404))
        for target, length, headers, expected in refused:
            async with sent(rig, target, b"", length=length, **headers) as reader:
                status, answered, text = await read_answer(reader)
                assert status == expected, text
                check_error(form, answered, text)
                assert answered["connection"] == "close"  # the body would not be read
        async with sent(rig, path, b"", length=10, **wanted) as reader:
            assert b"100 Continue" in await asyncio.wait_for(reader.readline(), 10)
            await until(lambda: rig.rif == 1)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_full_queue_refuses_at_the_headers(route: str) -> None:
    path, _, form = ROUTES[route]
    async with (
        serving(batching=BatchingConfig(max_queue=2, max_batch=1)) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        rig.backend.gate.clear()
        held = [asyncio.create_task(http.post("/", data=IMAGE))]
        await until(lambda: rig.engine.running_s() > 0)
        held += [asyncio.create_task(http.post("/", data=IMAGE)) for _ in range(2)]
        await until(lambda: rig.engine.queued == 2)
        async with sent(rig, path, b"", length=10, Expect="100-continue") as reader:
            status, headers, text = await read_answer(reader)
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        check_error(form, headers, text)
        assert rig.rif == 3
        rig.backend.gate.set()
        for task in held:
            assert (await task).status == 200
    assert rig.rif == 0


async def test_too_many_in_flight(rig_of_one: Rig) -> None:
    rig_of_one.backend.gate.clear()
    async with sent(rig_of_one, "/", IMAGE):
        await until(lambda: rig_of_one.rif == 1)
        for path, body, form in ROUTES.values():
            async with sent(rig_of_one, path, body) as reader:
                status, headers, text = await read_answer(reader)
            assert status == 429
            check_error(form, headers, text)


@pytest.fixture
async def rig_of_one() -> AsyncIterator[Rig]:
    async with serving(requests=RequestConfig(max_in_flight=1)) as rig:
        yield rig


async def test_a_leaving_worker_refuses_every_protocol() -> None:
    async with serving() as rig:
        rig.service.admission.refusal = Draining("this worker is leaving")
        for path, body, form in ROUTES.values():
            async with sent(rig, path, body) as reader:
                status, headers, text = await read_answer(reader)
            assert status == 503
            check_error(form, headers, text)
        frame = frame_head(StreamImage(), len(IMAGE)) + IMAGE
        async with sent(rig, "/v1/stream/colours", frame, Content_Type=STREAM_TYPE) as reader:
            status, headers, text = await read_answer(reader)
        assert status == 503
        check_error("own", headers, text)


@pytest.mark.parametrize("route", ["tensorflow serving", "v2"])
async def test_an_endless_body_is_refused_before_it_is_read_whole(route: str) -> None:
    path, _, form = ROUTES[route]
    async with serving(requests=RequestConfig(max_bytes=1_000_000)) as rig:
        sized = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        async with sent(rig, path, sized * 2, Transfer_Encoding="chunked") as reader:
            status, headers, text = await read_answer(reader)
        assert status == 413
        check_error(form, headers, text)


async def test_load_answers_while_the_model_is_held_up() -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        rig.backend.gate.clear()
        held = [asyncio.create_task(http.post("/", data=IMAGE)) for _ in range(8)]
        await until(lambda: rig.rif == 8)
        async with http.get("/load") as response:
            assert (await response.json())["rif"] == 8
        rig.backend.gate.set()
        for task in held:
            report = LoadReport.from_header((await task).headers["endpoint-load-metrics"])
            assert report.rif < 8


@pytest.mark.parametrize("path", [*(each[0] for each in ROUTES.values()), "/v1/stream/colours"])
@pytest.mark.parametrize("model", ["colours", "flowers"])
async def test_what_is_meant_for_another_process_is_refused_before_its_body(
    path: str, model: str
) -> None:
    """Also for a model that this process does not have, which the other one may have had."""
    path = path.replace("colours", model)
    headers = {"Fingerpost_Boot_Id": "2", "Content_Type": STREAM_TYPE}
    async with serving() as rig, sent(rig, path, b"", length=100_000, **headers) as reader:
        status, _, body = await read_answer(reader)
        assert status == 421
        assert b"boot id 2" in body
        async with sent(rig, path, b"", length=9, Expect="100-continue", **headers) as held:
            assert (await read_answer(held))[0] == 421


async def test_what_is_meant_for_this_process_is_served() -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        for path, image, _ in ROUTES.values():
            for _ in range(2):  # the second one goes the fast path
                mine = await http.post(path, data=image, headers={"Fingerpost-Boot-Id": "1"})
                assert mine.status == 200, await mine.text()
            other = await http.post(path, data=image, headers={"Fingerpost-Boot-Id": "2"})
            assert other.status == 421


async def test_a_worker_whose_model_hangs_reports_that_it_has_failed() -> None:
    async with serving(models=ModelsConfig(stall_s=0.05)) as rig, aiohttp.ClientSession() as http:
        rig.backend.gate.clear()
        call = asyncio.create_task(http.post(f"{rig.url}/", data=encoded("red")))

        async def state() -> int:
            async with http.get(f"{rig.url}/load") as response:
                return (await response.json())["state"]

        assert await state() == WorkerState.READY
        while await state() != WorkerState.FAILED:
            await asyncio.sleep(0.01)
        rig.backend.gate.set()
        async with await call as response:
            assert response.status == 200
        assert await state() == WorkerState.READY
