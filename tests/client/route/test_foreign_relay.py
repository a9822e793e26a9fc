"""Foreign workers behind real proxies that relay."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.client.conftest import Foreign
from tests.support.colours import LABELS, encoded
from tests.support.foreign import static_url
from tests.support.hostile import FIXED, reply, serving_hostile
from tests.support.ports import free_port
from tests.support.rig import serving
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig, Embedding, JsonAnswer
from fingerpost.errors import (
    BadAnswer,
    BrokenImage,
    DeadlineExceeded,
    ImageError,
    SuspectImage,
    Unauthorized,
    UnknownPath,
    UnsupportedImage,
    WrongTask,
)
from fingerpost.proxy import Proxy, ProxyConfig

RED, BLUE = encoded("red"), encoded("blue", form="JPEG")
SERVER = Path(__file__).parents[2] / "support" / "article_server.py"
TENSOR = {"size": "16x16"}
CASES = [
    {"protocol": "form"},
    {"protocol": "v2"},
    {"protocol": "v2", "encoding": "binary", **TENSOR},
    {"protocol": "tfserving", "version": "7", **TENSOR},
]


@contextlib.asynccontextmanager
async def relaying(registry: str, *, relay: bool = True) -> AsyncIterator[Proxy]:
    """A proxy that relays to a fixed list of workers."""
    async with Proxy(
        ProxyConfig(registry=registry, port=0, relay=relay, probe_interval_s=0)
    ) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def through(registry: str, **config: object) -> AsyncIterator[Client]:
    """A client whose images go through a proxy to a fixed list of workers."""
    async with relaying(registry) as proxy:
        made = ClientConfig(relay=True, **config)  # type: ignore[arg-type]
        async with Client(proxy.url, config=made) as client:
            yield client


@pytest.mark.frameworks
async def test_a_real_worker_answers_as_it_does_directly() -> None:
    labels = {"colours": list(LABELS)}
    async with serving() as rig:
        for meta in CASES:
            numbered = None if meta["protocol"] == "form" else labels
            registry = static_url(rig.port, **meta)
            async with (
                Client(registry, config=ClientConfig(labels=numbered)) as straight,
                through(registry, labels=numbered) as client,
            ):
                for image in (RED, BLUE):
                    expected = await straight.classify(image, "colours", top=3)
                    found = await client.classify(image, "colours", top=3)
                    assert dict(found.predictions) == pytest.approx(dict(expected.predictions))
                    assert (found.worker, found.address) == (expected.worker, expected.address)
                    assert (found.version, found.model) == (expected.version, "colours")
                    assert found.relay != "" == expected.relay
                assert client.stats.bytes_relayed == straight.stats.bytes_sent
                assert client.stats.bytes_sent == client.stats.probes == 0
                for bad, kind in ((b"text", UnsupportedImage), (RED[:60], BrokenImage)):
                    with pytest.raises(kind):
                        await client.classify(bad, "colours")


async def article_server(port: int) -> asyncio.subprocess.Process:
    """The article's Flask app, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-SP", str(SERVER), str(port))  # without this folder's modules
    )

    async def answers() -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/ping"):
                return True
        except aiohttp.ClientError:
            return False

    await until(answers)
    return process


async def test_no_image_is_lost_when_one_of_two_servers_of_the_article_is_killed() -> None:
    ports = [free_port(), free_port()]
    processes = [await article_server(each) for each in ports]
    try:
        async with through(static_url(*ports, model="flowers", protocol="form")) as client:
            results = []
            async for each in client.stream([RED] * 120, "flowers", concurrency=4):
                results.append(each)
                if len(results) == 30:
                    processes[0].kill()
            assert [each.label for each in results] == ["daisy"] * 120
            assert {each.address for each in results} == {f"127.0.0.1:{port}" for port in ports}
            assert {each.address for each in results[-30:]} == {f"127.0.0.1:{ports[1]}"}
            assert {each.relay for each in results} != {""}
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def test_curl_sends_the_protocol_of_the_worker_itself(foreign: list[Foreign]) -> None:
    one = foreign[0]
    registry = static_url(one.server.port, protocol="form", path="/predict")
    async with relaying(registry) as proxy:
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "-F", "data=@-", f"{proxy.url}/v1/relay/foreign/colours"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await process.communicate(RED)
    assert answer == b'{"daisy": 0.25, "rose": 0.75}'
    [(path, _, body)] = one.requests
    assert path == "/predict"
    assert RED in body


async def test_the_worker_gets_nothing_that_is_ours_and_names_no_path(
    foreign: list[Foreign],
) -> None:
    async with relaying(static_url(foreign[0].server.port, protocol="torchserve")) as proxy:
        config = ClientConfig(relay=True, lease="abc.def.ghi")
        async with Client(proxy.url, config=config, api_key="key-of-a-caller") as client:
            await client.classify(RED, "colours")
        async with aiohttp.ClientSession(proxy.url) as http:
            for path in (
                "/v1/relay/foreign/colours?path=/admin",
                "/v1/relay/foreign/colours?top=3",
                "/v1/relay/foreign/../admin",
            ):
                async with http.post(path, data=RED) as answer:
                    assert answer.status in (400, 404), path
            async with http.post("/v1/relay/foreign/colours?worker=other", data=RED) as answer:
                assert answer.status == 503
                assert "knows no worker 'other'" in await answer.text()
    [(path, headers, body)] = foreign[0].requests
    assert (path, body) == ("/predictions/colours", RED)
    assert not {"Authorization", "Cookie", "Fingerpost-Boot-Id", "Fingerpost-Worker"} & set(headers)


async def test_each_worker_has_its_own_protocol_load_and_ejection(foreign: list[Foreign]) -> None:
    slow, fast, ill = foreign
    slow.delay_s, fast.delay_s, ill.status = 0.5, 0.01, 500
    async with (
        relaying(
            static_url(*(each.server.port for each in foreign), protocol="torchserve")
        ) as proxy,
        Client(proxy.url, config=ClientConfig(relay=True)) as client,
    ):
        results = [each async for each in client.stream([RED] * 60, "colours", concurrency=4)]
        assert [each.label for each in results] == ["rose"] * 60
    assert len(fast.requests) > len(slow.requests) > 0
    assert len(ill.requests) < 10


async def test_both_kinds_of_workers_in_one_service(relays, foreign: list[Foreign]) -> None:
    await relays.add("ours")
    entry = {"Name": "digits", "ID": "theirs", "Address": "127.0.0.1",
             "Port": foreign[0].server.port, "Meta": {"protocol": "torchserve"}}  # fmt: skip
    url = f"{relays.registry.replace('consul://', 'http://')}/v1/agent/service/register"
    async with aiohttp.ClientSession() as http, http.put(url, json=entry) as answer:
        assert answer.status == 200
    proxies = [await relays.proxy(2), await relays.proxy(2)]
    client = relays.client(*proxies)
    results = [each async for each in client.stream([RED] * 60, "digits", concurrency=4)]
    assert {each.label for each in results} == {"rose", str(len(RED))}
    assert len({each.relay for each in results}) == 2
    await relays.stop(proxies[0])
    results = [each async for each in client.stream([RED] * 60, "digits", concurrency=4)]
    assert {each.relay for each in results} == {proxies[1].url.removeprefix("http://")}
    assert {each.worker.partition("-")[0] for each in results} == {"ours", "theirs"}


async def test_other_tasks_and_named_inputs(foreign: list[Foreign]) -> None:
    one = foreign[0]
    one.answer = {"caption": "a red square"}
    async with through(static_url(one.server.port, protocol="form", task="json")) as client:
        found = await client.infer({"photo": RED, "words": [1, 2]}, "colours")
        assert isinstance(found, JsonAnswer)
        assert found.value == one.answer
        assert b'name="words"\r\n\r\n[1,2]\r\n' in one.requests[0][2]
        with pytest.raises(WrongTask, match=f"127.0.0.1:{one.server.port} answers json"):
            await client.classify(RED, "colours")
    output = {"name": "row", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    one.answer = {"outputs": [output]}
    registry = static_url(one.server.port, protocol="v2", encoding="binary", task="embedding")
    async with through(registry) as client:
        found = await client.infer(RED, "colours")
    assert isinstance(found, Embedding)
    assert list(found.vector) == [1, 2, 3]
    assert "Inference-Header-Content-Length" in one.requests[-1][1]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ImageError), (422, BrokenImage), (403, Unauthorized), (404, UnknownPath),
     (421, UnknownPath), (500, BadAnswer)],
)  # fmt: skip
async def test_errors_are_those_of_the_worker(
    foreign: list[Foreign], status: int, kind: type[Exception]
) -> None:
    one = foreign[0]
    one.status, one.answer = status, {"error": "no"}
    async with through(static_url(one.server.port, protocol="form")) as client:
        with pytest.raises(kind, match=f"127.0.0.1:{one.server.port}: HTTP {status} at /"):
            await client.classify(RED, "colours", timeout_s=5)
    assert len(one.requests) <= 3


async def test_a_busy_server_is_waited_for(foreign: list[Foreign]) -> None:
    foreign[0].status = 429
    async with through(static_url(foreign[0].server.port, protocol="form")) as client:
        with pytest.raises(DeadlineExceeded, match="HTTP 429"):
            await client.classify(RED, "colours", timeout_s=0.5)


# Fingerpost's own form, of which any labels and scores are read: its other fields do not count.
_READ = {
    *("400-digit score", "400-digit time", "negative time", "null"),
    *("no predictions", "predictions of another type"),
}
# 429: it is asked again until the deadline.
_BUSY = {"invalid UTF-8 in an error", "Retry-After of 400 digits"}


@pytest.mark.parametrize("name", sorted(FIXED.keys() - _READ))
async def test_what_a_hostile_server_answers(name: str) -> None:
    async with (
        serving_hostile(FIXED[name]) as hostile,
        through(static_url(hostile.port, protocol="form")) as client,
    ):
        busy = name in _BUSY
        with pytest.raises(DeadlineExceeded if busy else BadAnswer, match=str(hostile.port)):
            await client.classify(RED, "colours", timeout_s=1 if busy else 30)
        assert client.stats.bytes_sent == 0


async def test_a_redirect_of_a_foreign_worker_is_not_followed() -> None:
    answer = reply(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:9/secret")
    async with (
        serving_hostile(answer) as hostile,
        through(static_url(hostile.port, protocol="form")) as client,
    ):
        with pytest.raises(BadAnswer, match="HTTP 307, which is not passed on"):
            await client.classify(RED, "colours")


async def test_an_image_on_which_servers_fall_silent_is_given_up() -> None:
    async with (
        serving_hostile(b"", b"") as one,
        through(static_url(one.port, protocol="torchserve"), response_timeout_s=0.3) as client,
    ):
        with pytest.raises((SuspectImage, DeadlineExceeded)):
            await client.classify(RED, "colours", timeout_s=2)


async def test_a_proxy_whose_relay_is_off(foreign: list[Foreign]) -> None:
    registry = static_url(foreign[0].server.port, protocol="form")
    async with (
        relaying(registry, relay=False) as proxy,
        Client(proxy.url, config=ClientConfig(relay=True)) as client,
    ):
        with pytest.raises(Unauthorized, match="does not relay images"):
            await client.classify(RED, "colours")
    assert foreign[0].requests == []


async def test_one_that_is_ours_is_not_asked_in_another_protocol(relays) -> None:
    worker = await relays.add("ours")
    proxy = await relays.proxy(1)
    async with (
        aiohttp.ClientSession(proxy.url) as http,
        http.post("/v1/relay/foreign/digits", data=RED) as answer,
    ):
        assert answer.status == 403
        assert "/v1/relay/digits" in await answer.text()
    assert worker.requests == []
