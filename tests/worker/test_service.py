"""A real worker on a real socket, with a real model and the embedded registry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import FormData

from fingerpost.client.wire import ClassifyAnswer
from fingerpost.errors import ConfigurationError, RegistryError
from fingerpost.registry import LOAD_HEADER, LoadReport, WorkerState, open_registry
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.config import (
    DrainConfig,
    ModelsConfig,
    RegistrationConfig,
    RequestConfig,
    WorkerConfig,
)
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.repository.sources import ModelFolder
from fingerpost.worker.repository.versions.policy import VersionPolicy
from fingerpost.worker.worker import Worker
from tests.support.colours import Models, encoded
from tests.support.optional import not_none
from tests.support.pictures import png_claiming
from tests.support.repository import write_version
from tests.support.waiting import until


@pytest.fixture
async def registry_url() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as registry:
        yield registry.url


def make(models: Models, registry_url: str, **settings: Any) -> Worker:
    settings = {
        "drain": DrainConfig(lease_s=0.0),
        "images": ImageConfig(max_bytes=200_000),
        **settings,
    }
    config = WorkerConfig(registry=registry_url, **settings)
    return Worker(
        find_model(models.saved_model),
        lambda files: load_backend(files, LoadConfig()),
        config,
    )


@pytest.fixture
async def worker(models: Models, registry_url: str) -> AsyncIterator[Worker]:
    async with make(models, registry_url) as worker:
        await worker.register()
        yield worker


@pytest.fixture
async def http(worker: Worker) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(worker.instance.url) as session:
        yield session


async def error_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    body = await response.json()
    assert set(body) == {"error"}
    waits = {"retry_after_s"} if "Retry-After" in response.headers else set[str]()
    assert set(body["error"]) == {"code", "message", "retryable"} | waits
    assert LOAD_HEADER in response.headers
    return response.status, body["error"]["code"]


async def test_one_raw_image(http: aiohttp.ClientSession) -> None:
    async with http.post("/", data=encoded("green")) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        answer = await response.json()
        report = LoadReport.from_header(response.headers[LOAD_HEADER])
    assert [label for label, _ in answer][0] == "green"
    assert [score for _, score in answer] == sorted((s for _, s in answer), reverse=True)
    assert report.state is WorkerState.READY
    assert report.rif == 0


async def test_one_multipart_image_under_data(http: aiohttp.ClientSession) -> None:
    form = FormData()
    form.add_field("comment", "passed over")
    form.add_field("data", encoded("blue"), filename="sky.png")
    async with http.post("/", data=form, params={"top": "1"}) as response:
        ((label, score),) = await response.json()
    assert label == "blue"
    assert score > 0.99


async def test_classify_says_model_version_and_timings(http: aiohttp.ClientSession) -> None:
    for path in ("colours", "colours@7"):
        async with http.post(f"/v1/classify/{path}", data=encoded("red", form="JPEG")) as response:
            answer = msgspec.json.decode(await response.read(), type=ClassifyAnswer)
        assert (answer.model, answer.version) == ("colours", "7")
        assert answer.results[0].predictions[0][0] == "red"
        assert not_none(answer.results[0].timings_ms).inference > 0


async def test_several_images_each_with_its_own_outcome(http: aiohttp.ClientSession) -> None:
    form = FormData()
    for number in range(15):
        colour = ("red", "green", "blue")[number % 3]
        form.add_field("data", encoded(colour), filename=f"{number}-{colour}.png")
    form.add_field("data", encoded("red")[:50], filename="broken.png")
    async with http.post("/v1/classify/colours", data=form) as response:
        assert response.status == 200
        answer = msgspec.json.decode(await response.read(), type=ClassifyAnswer)
    good, bad = answer.results[:15], answer.results[15]
    assert all(each.predictions[0][0] in each.name for each in good)
    assert bad.name == "broken.png"
    assert not_none(bad.error).code == "broken_image"


BAD_BODIES = {
    "empty": (b"", 400, "empty_image"),
    "text": (b"not an image at all", 415, "unsupported_image"),
    "truncated jpeg": (encoded("red", (300, 300), "JPEG")[:400], 422, "broken_image"),
    "100 megapixels in 12 KB": (png_claiming(10_000, 10_000), 413, "image_too_large"),
    "too many bytes": (b"\xff\xd8\xff" + bytes(200_001), 413, "image_too_large"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("path", ["/", "/v1/classify/colours"])
async def test_bad_images(http: aiohttp.ClientSession, path: str, name: str) -> None:
    body, status, code = BAD_BODIES[name]
    async with http.post(path, data=body) as response:
        assert await error_of(response) == (status, code)


async def test_an_oversized_chunked_body_is_refused_before_it_is_read_whole(
    http: aiohttp.ClientSession,
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 500_000_000:
            sent += 100_000
            yield bytes(100_000)

    with contextlib.suppress(aiohttp.ClientError):
        async with http.post("/", data=endless()) as response:
            assert await error_of(response) == (413, "image_too_large")
    assert sent < 50_000_000


BAD_REQUESTS = {
    "unknown model": ("POST", "/v1/classify/flowers", {}, 404, "unknown_model"),
    "unknown version": ("POST", "/v1/classify/colours@8", {}, 404, "unknown_model"),
    "unknown alias": ("POST", "/v1/classify/colours@canary", {}, 404, "unknown_model"),
    "bad name": ("POST", "/v1/classify/..%2f..%2fetc", {}, 400, "invalid_name"),
    "bad top": ("POST", "/?top=-1", {}, 400, "invalid_request"),
    "unknown path": ("GET", "/v3/nothing", {}, 404, "unknown_path"),
    "wrong method": ("GET", "/v1/classify/colours", {}, 405, "method_not_allowed"),
    "gzip": ("POST", "/", {"Content-Encoding": "gzip"}, 415, "unsupported_image"),
    "no deadline left": ("POST", "/", {"Fingerpost-Deadline-Ms": "0"}, 504, "deadline"),
    "nonsense deadline": ("POST", "/", {"Fingerpost-Deadline-Ms": "x"}, 400, "invalid_request"),
    "no boundary": ("POST", "/", {"Content-Type": "multipart/form-data"}, 400, "invalid_request"),
    "bad boundary": (
        "POST",
        "/",
        {"Content-Type": "multipart/form-data; boundary=b"},
        400,
        "invalid_request",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_bad_requests(http: aiohttp.ClientSession, name: str) -> None:
    method, path, headers, status, code = BAD_REQUESTS[name]
    from yarl import URL

    url = URL(f"{http._base_url}".rstrip("/") + path, encoded=True)
    body = encoded("red") if method == "POST" else None
    async with aiohttp.request(method, url, data=body, headers=headers) as response:
        assert await error_of(response) == (status, code)


async def test_multipart_without_an_image(http: aiohttp.ClientSession) -> None:
    form = FormData()
    form.add_field("data2", "x", content_type="text/plain")
    async with http.post("/", data=form) as response:
        assert await error_of(response) == (400, "invalid_request")
    two = FormData()
    for _ in range(2):
        two.add_field("data", encoded("red"), filename="a.png")
    async with http.post("/", data=two) as response:
        assert await error_of(response) == (400, "invalid_request")


async def test_names_that_are_no_text_come_back_escaped(worker: Worker) -> None:
    for disposition, status in ((b'name="data"; filename="\xff.png"', 200), (b"\xff", 400)):
        body = b"--B\r\nContent-Disposition: form-data; " + disposition + b"\r\n"
        body += b"Content-Type: multipart/mixe\xff\r\n\r\n" if status == 400 else b"\r\n"
        body += encoded("red") + b"\r\n--B--\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.instance.ports["http"])
        writer.write(
            b"POST /v1/classify/colours HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer


async def test_bad_input_disturbs_nothing_else(http: aiohttp.ClientSession) -> None:
    async def good() -> str:
        async with http.post("/", data=encoded("green")) as response:
            return (await response.json())[0][0]

    async def bad() -> int:
        async with http.post("/", data=encoded("green")[:70]) as response:
            return response.status

    answers = await asyncio.gather(*(good() if n % 3 else bad() for n in range(60)))
    assert answers == ["green" if n % 3 else 422 for n in range(60)]


async def test_expect_continue_is_answered_by_an_error_before_the_body(worker: Worker) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.instance.ports["http"])
    try:
        for length, path, expected in (
            (10_000_000, "/", b"413"),
            (100, "/v1/classify/flowers", b"404"),
        ):
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            line = await asyncio.wait_for(reader.readline(), 5)
            assert expected in line
            writer.close()
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", worker.instance.ports["http"]
            )
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert b"100 Continue" in await asyncio.wait_for(reader.readline(), 5)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_stalled_upload_is_closed(models: Models, registry_url: str) -> None:
    async with make(models, registry_url, requests=RequestConfig(body_timeout_s=0.2)) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.instance.ports["http"])
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        answer = await asyncio.wait_for(reader.read(10_000), 10)
        writer.close()
        await writer.wait_closed()
    assert b" 400 " in answer
    assert b"no byte came for 0.2 s" in answer


async def test_too_many_in_flight_is_429_at_the_headers(models: Models, registry_url: str) -> None:
    async with (
        make(models, registry_url, requests=RequestConfig(max_in_flight=1)) as worker,
        aiohttp.ClientSession(worker.instance.url) as http,
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", worker.instance.ports["http"])
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")

        async def in_flight() -> int:
            async with http.get("/load") as response:
                return (await response.json())["rif"]

        await until(in_flight)
        async with http.post("/", data=encoded("red")) as response:
            assert await error_of(response) == (429, "overloaded")
            assert response.headers["Retry-After"] == "1"
        writer.close()

        async def released() -> bool:
            return await in_flight() == 0

        await until(released)  # although the client went away
        async with http.post("/", data=encoded("red")) as response:
            assert response.status == 200


async def test_load_health_and_metrics(http: aiohttp.ClientSession) -> None:
    async with http.post("/", data=encoded("red")) as response:
        assert response.status == 200
    async with http.get("/load") as response:
        report = msgspec.json.decode(await response.read(), type=LoadReport)
        assert (report.rif, report.state) == (0, WorkerState.READY)
        assert 1 <= report.slots <= 32  # as its warm-up measured
    assert report.latency_per_cost_s > 0
    for path in ("/health/live", "/health/engine", "/health/ready"):
        async with http.get(path) as response:
            assert response.status == 200
            if path == "/health/engine":
                assert await response.json() == {"status": "healthy"}
    async with http.get("/metrics") as response:
        text = await response.text()
    assert 'fingerpost_worker_requests_total{model="colours",status="200"} 1.0' in text
    assert 'fingerpost_worker_images_total{model="colours"} 1.0' in text
    size = float(len(encoded("red")))
    assert f'fingerpost_worker_body_bytes_total{{model="colours"}} {size}' in text
    assert 'fingerpost_worker_batch_size_images_count{model="colours"} 1.0' in text


async def test_requests_by_an_alias_count_for_the_model(tmp_path: Path, registry_url: str) -> None:
    folder = tmp_path / "flowers"
    for version in (1, 2):
        write_version(folder, version)
    (folder / "versions.toml").write_text("[aliases]\nstable = 1\n")
    models_config = ModelsConfig(admin_token="a-token-for-tests-only")  # noqa: S106
    config = WorkerConfig(registry=registry_url, models=models_config)
    source = ModelFolder(folder, policy=VersionPolicy.parse("all"))
    async with (
        Worker(source, lambda files: load_backend(files, LoadConfig()), config) as worker,
        aiohttp.ClientSession(worker.instance.url) as http,
    ):

        async def ask(alias: str) -> str:
            async with http.post(f"/v1/classify/flowers@{alias}", data=b"image") as response:
                body = await response.json()
                return body["version"] if response.status == 200 else body["error"]["code"]

        assert [await ask("stable") for _ in range(3)] == ["1"] * 3
        order = {"Authorization": f"Bearer {config.models.admin_token}"}
        path = "/v1/admin/models/flowers/aliases/stable"
        async with http.put(path, json={"version": "2"}, headers=order) as response:
            assert response.status == 200
        assert await ask("stable") == "2"
        assert await ask("canary") == "unknown_model"
        async with http.get("/metrics") as response:
            text = await response.text()
    assert 'fingerpost_worker_requests_total{model="flowers",status="200"} 4.0' in text
    assert 'fingerpost_worker_requests_total{model="",status="404"} 1.0' in text
    assert 'fingerpost_worker_images_total{model="flowers"} 4.0' in text
    assert 'fingerpost_worker_total_seconds_count{model="flowers"} 4.0' in text
    assert "stable" not in text


async def test_the_life_of_a_worker(models: Models, registry_url: str) -> None:
    registry = open_registry(registry_url)
    async with (
        make(models, registry_url) as worker,
        aiohttp.ClientSession(worker.instance.url) as http,
    ):
        async with http.get("/health/ready") as response:
            assert response.status == 503
        assert (await registry.list("colours")).instances == ()
        await worker.register()
        async with http.get("/health/ready") as response:
            assert response.status == 200
        (instance,) = (await registry.list("colours")).instances
        assert instance == worker.instance
        assert instance.meta["framework"].startswith("tensorflow")
        assert instance.meta["image"] == "16x16x3"
        await worker.leave()
        assert (await registry.list("colours")).instances == ()
        async with http.get("/health/ready") as response:
            assert (response.status, await response.json()) == (503, {"status": "draining"})
        async with http.post("/", data=encoded("red")) as response:
            assert await error_of(response) == (503, "draining")
    assert not (await registry.list("colours")).known
    await registry.aclose()


async def test_a_start_that_cannot_succeed_says_why(
    models: Models, registry_url: str, worker: Worker
) -> None:
    port = worker.instance.ports["http"]
    with pytest.raises(ConfigurationError, match=rf"127.0.0.1:{port}: .*in use; .*another port"):
        async with make(models, registry_url, port=port):
            pass
    with pytest.raises(RegistryError, match="127.0.0.1:9"):
        at_once = RegistrationConfig(registry_wait_s=0)
        async with make(models, "http://127.0.0.1:9", registration=at_once):
            pass
    with pytest.raises(ConfigurationError, match="max_batch is 0"):
        make(models, registry_url, batching=BatchingConfig(max_batch=0))
