"""Orders over HTTP: who may, what they do, and what cannot be."""

from __future__ import annotations

import asyncio
import time
import urllib.parse

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
from yarl import URL

from tests.support.old_spellings import warned
from tests.support.repository import TOKEN, write_version
from tests.support.waiting import until

__all__ = ["warned"]  # a fixture

KEY = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def worker(tmp_path, serve):
    folder = tmp_path / "flowers"
    for version in (1, 2, 3):
        write_version(folder, version)
    (folder / "versions.toml").write_text('policy = "latest:1"\n[aliases]\nstable = 2\n')
    return await serve(tmp_path)


async def test_what_is_loaded(worker, order):
    status, answer = await order(worker, "GET", "")
    assert status == 200
    assert answer["models"] == [
        {
            "name": "flowers",
            "default": "3",
            "aliases": {"stable": "2"},
            "versions": [
                {"version": "3", "state": "AVAILABLE", "error": ""},
                {"version": "2", "state": "AVAILABLE", "error": ""},
            ],
            "problems": [],
        }
    ]


ORDERS = [
    ("GET", ""),
    ("POST", "flowers/versions/1/load"),
    ("POST", "flowers/versions/3/unload"),
    ("POST", "flowers/rollback"),
    ("PUT", "flowers/aliases/stable"),
]


@pytest.mark.parametrize("token", ["", "wrong", "a-token-for-tests-onlyX", "é"])
@pytest.mark.parametrize(("method", "path"), ORDERS)
async def test_without_the_token_nothing_is_done(worker, order, method, path, token):
    before = worker.instances
    status, answer = await order(worker, method, path, token=token, json={"version": "3"})
    assert (status, answer["error"]["code"]) == (403, "unauthorized")
    assert worker.instances == before


@pytest.mark.parametrize(("method", "path"), ORDERS)
async def test_it_is_not_there_unless_asked_for(tmp_path, serve, order, method, path):
    write_version(tmp_path / "flowers", 1)
    worker = await serve(tmp_path, admin_token=None)
    status, answer = await order(worker, method, path)
    assert (status, answer["error"]["code"]) == (404, "unknown_path")


async def test_orders_are_answered_when_they_are_done(worker, order, ask):
    status, answer = await order(worker, "POST", "flowers/versions/1/load")
    assert (status, answer["default"]) == (200, "3")
    assert await ask(worker, "flowers@1") == ("1", "v1")
    status, answer = await order(worker, "PUT", "flowers/aliases/canary", json={"version": "1"})
    assert (status, answer["aliases"]) == (200, {"canary": "1", "stable": "2"})
    assert await ask(worker, "flowers@canary") == ("1", "v1")
    status, answer = await order(worker, "POST", "flowers/rollback")
    assert (status, answer["default"]) == (200, "2")
    assert await ask(worker, "flowers") == ("2", "v2")
    status, answer = await order(worker, "PUT", "flowers/aliases/canary", json={"version": "2"})
    assert (status, answer["aliases"]["canary"]) == (200, "2")
    status, answer = await order(worker, "POST", "flowers/versions/1/unload")
    assert status == 200
    await until(lambda: worker.instance.models[0].versions == ("2",))
    assert worker.instance.models[0].aliases == {"canary": "2", "stable": "2"}


async def test_the_path_of_release_0_1_0_is_read_and_named_once(worker, order, warned):
    for version in ("3", "2"):
        path = "flowers/labels/canary"
        status, answer = await order(worker, "PUT", path, json={"version": version})
        assert (status, answer["aliases"]["canary"]) == (200, version)
    (line,) = warned()
    assert "'/labels/' is the old spelling of '/aliases/'" in line


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "says"),
    [
        ("POST", "cats/rollback", None, 404, "unknown_model", "this worker has flowers@3"),
        ("POST", "flowers/versions/9/load", None, 404, "unknown_model", "no version 9"),
        (
            "POST",
            "flowers/versions/x/load",
            None,
            400,
            "invalid_request",
            "not a valid model version",
        ),
        ("POST", "flowers/versions/2/unload", None, 400, "invalid_request", "move the alias"),
        ("PUT", "flowers/aliases/Stable", b'{"version": "3"}', 400, "invalid_name", "Stable"),
        ("PUT", "flowers/aliases/stable", b'{"version": "9"}', 404, "unknown_model", "version 9"),
        ("PUT", "flowers/aliases/stable", b'{"version": 3}', 400, "invalid_request", "version"),
        ("PUT", "flowers/aliases/stable", b"3", 400, "invalid_request", "the body must be"),
        ("PUT", "flowers/aliases/stable", b"x" * 5000, 400, "invalid_request", "the body must"),
        ("GET", "flowers/rollback", None, 405, "method_not_allowed", "POST"),
    ],
)
async def test_orders_that_cannot_be(worker, order, method, path, body, status, code, says):
    before = worker.instances
    given, answer = await order(worker, method, path, data=body)
    assert (given, answer["error"]["code"]) == (status, code)
    assert says in answer["error"]["message"]
    assert worker.instances == before


async def with_triton(worker, use):
    """Run what blocks in a thread of its own."""

    def run():
        address = urllib.parse.urlsplit(worker.instances[0].url).netloc
        with triton.InferenceServerClient(address, network_timeout=20) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def test_tritonclient_loads_and_unloads_models(tmp_path, serve, ask, registry_url, http):
    write_version(tmp_path / "flowers", 1)
    write_version(tmp_path / "birds", 1)
    worker = await serve(tmp_path)

    def unload(client):
        assert "model_repository" in client.get_server_metadata()["extensions"]
        client.unload_model("birds", headers=KEY)
        states = {each["name"]: each["state"] for each in client.get_model_repository_index()}
        assert states["birds"] in ("UNLOADING", "UNAVAILABLE")
        assert client.is_model_ready("flowers")
        with pytest.raises(InferenceServerException, match="'cats' is not served here"):
            client.unload_model("cats", headers=KEY)

    await with_triton(worker, unload)
    assert [each.service for each in worker.instances] == ["flowers"]
    passing = f"{registry_url}/v1/health/service/birds?passing=1"
    async with http.get(passing) as response:
        assert await response.json() == []

    async def gone():
        return (await ask(worker, "birds"))[0] == "404"

    await until(gone)  # after the lease

    write_version(tmp_path / "birds", 2)
    write_version(tmp_path / "cats", 1)

    def load(client):
        for model in ("birds", "cats"):
            client.load_model(model, headers=KEY)
            assert client.is_model_ready(model)
        client.load_model("cats", headers=KEY)  # which is there already

    await with_triton(worker, load)
    assert await ask(worker, "birds") == ("2", "v2")
    assert await ask(worker, "cats") == ("1", "v1")
    async with http.get(passing) as response:
        assert len(await response.json()) == 1


async def test_what_a_load_of_a_model_cannot_do(tmp_path, serve, http):
    write_version(tmp_path / "flowers", 1)
    worker = await serve(tmp_path)
    write_version(tmp_path / "flowers", 2, broken=True)

    def use(client):
        for key in (None, {"Authorization": "Bearer wrong"}):
            for call in (client.load_model, client.unload_model):
                with pytest.raises(InferenceServerException, match="admin token") as caught:
                    call("flowers", headers=key)
                assert caught.value.status() == "403"
        with pytest.raises(InferenceServerException, match="version 2: .*its weights are damaged"):
            client.load_model("flowers", headers=KEY)
        with pytest.raises(
            InferenceServerException, match="a load with config is not supported: flowers"
        ):
            client.load_model("flowers", headers=KEY, config="{}")
        assert client.is_model_ready("flowers", "1")

    await with_triton(worker, use)
    url = f"{worker.instance.url}/v2/repository/models/flowers/load"
    async with http.post(url, headers=KEY, data=b"[1]") as response:
        assert (response.status, (await response.json())["error"][:16]) == (400, "the body must be")


async def test_orders_that_cross_each_other_end(tmp_path, serve, order, http):
    write_version(tmp_path / "flowers", 1)
    worker = await serve(tmp_path)
    write_version(tmp_path / "flowers", 2, warm_up_s=0.3)
    loading = asyncio.create_task(order(worker, "POST", "flowers/versions/2/load"))

    async def begun():
        models = (await order(worker, "GET", ""))[1]["models"]
        return models[0]["versions"][0]["state"] == "LOADING"

    await until(begun)
    url = f"{worker.instance.url}/v2/repository/models/flowers/unload"
    async with http.post(url, headers=KEY) as response:
        assert response.status == 200
    status, answer = await loading
    assert (status, "unloaded again" in answer["error"]["message"]) == (400, True)


async def test_wrong_tokens_are_seen_and_slow(worker, order, http, caplog):
    started = time.monotonic()
    for _ in range(4):
        assert (await order(worker, "GET", "", token="guess-12345"))[0] == 403  # noqa: S106
    assert time.monotonic() - started > 0.25 + 0.5 + 1
    lines = [each.getMessage() for each in caplog.records if "admin token" in each.getMessage()]
    assert lines[0] == "GET /v1/admin/models from 127.0.0.1 is refused: a wrong admin token"
    assert "guess-12345" not in caplog.text
    async with http.get(f"{worker.instance.url}/metrics") as answer:
        assert "fingerpost_worker_admin_denied_requests_total 4.0" in await answer.text()
    assert (await order(worker, "GET", ""))[0] == 200
    started = time.monotonic()
    assert (await order(worker, "GET", ""))[0] == 200
    assert time.monotonic() - started < 0.2, "a success ends the pauses"


async def test_a_line_of_the_log_is_not_forged(worker, http, caplog):
    path = "/v1/admin/models/x%0A2026-01-01%20INFO%20forged%1B[2J/rollback"
    async with http.post(URL(f"{worker.instance.url}{path}", encoded=True)) as answer:
        assert answer.status == 403
    assert r"/v1/admin/models/x\n2026-01-01 INFO forged\x1b[2J/rollback from" in caplog.text


async def test_a_web_page_may_not_send_orders(worker, http, caplog):
    url = f"{worker.instance.url}/v1/admin/models/flowers/rollback"
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "http://evil.example", "Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        async with http.post(url, headers=KEY | headers) as answer:
            assert answer.status == 403
            assert "of another origin" in (await answer.json())["error"]["message"]
    assert worker.instance.models[0].versions[0] == "3"
    async with http.post(url, headers=KEY | {"Origin": worker.instance.url}) as answer:
        assert answer.status == 200


async def test_unknown_parameters_are_refused(worker, order, http):
    status, answer = await order(worker, "POST", "flowers/rollback?version=1")
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert worker.instance.models[0].versions[0] == "3"
    for path in ("/", "/v1/classify/flowers"):
        async with http.post(f"{worker.instance.url}{path}?version=2", data=b"x") as answer:
            assert answer.status == 400
            assert "it takes top" in (await answer.json())["error"]["message"]
    for path in ("/v1/models/flowers?x=1", "/v2/models/flowers?x=1"):  # of other protocols
        async with http.get(f"{worker.instance.url}{path}") as answer:
            assert answer.status == 200
