"""How the Consul registry behaves towards a peer that fails: a scripted server, real sockets."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.errors import (
    ConfigurationError,
    InvalidInstance,
    NotARegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
)
from fingerpost.registry import ConsulRegistry, WatchConfig
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.http.app import bind, serve

INDEX = {"X-Consul-Index": "7", "X-Consul-KnownLeader": "true"}


class Agent:
    """A server whose answer to everything is `answer`; it remembers the requests."""

    def __init__(self):
        self.requests = []
        self.answer = lambda request: web.json_response([], headers=INDEX)
        self.url = ""

    async def handle(self, request):
        self.requests.append(request)
        answer = self.answer(request)
        return await answer if asyncio.iscoroutine(answer) else answer


@pytest.fixture
async def agent():
    agent = Agent()
    app = web.Application(client_max_size=2**20)
    app.router.add_route("*", "/{path:.*}", agent.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await serve(runner, bind("127.0.0.1", 0))
    agent.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield agent
    await runner.cleanup()


async def _frozen(_):
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RegistryError),
        (401, RegistryDenied),
        (403, RegistryDenied),
        (404, NotARegistry),
        (429, RegistryError),
        (500, RegistryError),
        (302, NotARegistry),
    ],
)
async def test_a_bad_status_is_a_typed_error_that_shows_it(agent, connect, worker, status, error):
    agent.answer = lambda _: web.Response(status=status, text="no luck", headers={"Location": "/x"})
    registry = connect(agent.url)
    for call in (registry.list("flowers"), registry.catalog()):
        with pytest.raises(error, match=f"{status}.*no luck") as caught:
            await call
        assert type(caught.value) is error
    with pytest.raises(RegistryError):
        await registry.register(worker.instance("flowers"))
    assert len(agent.requests) <= 6, "neither redirects nor errors are followed up"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>", headers=INDEX),
        lambda: web.json_response([]),
        lambda: web.json_response([], headers={"X-Consul-Index": "odd"}),
        lambda: web.json_response([], headers={"X-Consul-Index": "9" * 5000}),
        lambda: web.json_response({"a": 1}, headers=INDEX),
        lambda: web.json_response([], headers=INDEX | {"X-Consul-KnownLeader": "false"}),
    ],
    ids=["html", "no index", "odd index", "huge index", "object", "empty without a leader"],
)
async def test_an_answer_that_is_none_is_an_error_and_no_empty_list(agent, connect, answer):
    agent.answer = lambda _: answer()
    with pytest.raises(RegistryError):
        await connect(agent.url).list("flowers")


CALLS = {
    "list": lambda registry, _: registry.list("flowers"),
    "catalog": lambda registry, _: registry.catalog(),
    "register": lambda registry, worker: registry.register(worker.instance("flowers")),
    "watch": lambda registry, _: registry.watch("flowers").ready(0.5),
}


@pytest.mark.parametrize("call", CALLS)
async def test_no_call_outlives_its_deadline_when_the_agent_freezes(agent, connect, worker, call):
    agent.answer = _frozen
    registry = connect(agent.url, call_timeout_s=0.2)
    started = time.monotonic()
    with pytest.raises(RegistryUnreachable):
        await CALLS[call](registry, worker)
    assert time.monotonic() - started < 2


async def test_a_registration_that_is_cancelled_leaves_no_entry(agent, connect, worker):
    def answer(request):
        return web.Response() if request.method == "PUT" else _frozen(request)

    agent.answer = answer
    registering = asyncio.create_task(connect(agent.url).register(worker.instance("flowers")))
    await until(lambda: [each for each in agent.requests if each.method == "GET"])
    registering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await registering
    removed = [each.path for each in agent.requests if "/deregister/" in each.path]
    assert removed == [f"/v1/agent/service/deregister/{worker.instance('flowers').id}"]


async def test_nobody_there_is_unreachable(connect, free_port):
    with pytest.raises(RegistryUnreachable, match=str(free_port)):
        await connect(f"http://127.0.0.1:{free_port}").list("flowers")


async def test_watches_do_not_keep_calls_waiting(agent, connect):
    async def held(request):
        if "index" in request.query:
            await _frozen(request)
        return web.json_response([], headers=INDEX)

    agent.answer = held
    registry = connect(agent.url, call_timeout_s=2.0, watch_config=WatchConfig(wait_s=60))
    for number in range(50):
        registry.watch(f"service-{number}")
    for number in range(50):
        await registry.watch(f"service-{number}").ready(10)
    assert not (await registry.list("flowers")).known


async def test_the_number_of_watches_is_bounded(agent, connect):
    agent.answer = _frozen
    registry = connect(agent.url)
    for number in range(100):
        registry.watch(f"service-{number}")
    with pytest.raises(RegistryError, match="100"):
        registry.watch("one-more")
    registry.watch("service-7")


async def test_the_token_travels_with_every_call_and_the_environment_is_not_asked(
    agent, connect, worker, monkeypatch
):
    for name in ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_ADDR", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    registry = connect(
        agent.url,
        registry_config=RegistryConfig(token="ours", datacenters=("dc7",)),  # noqa: S106 (no secret)
        call_timeout_s=0.2,
    )
    await registry.list("flowers")
    with pytest.raises(RegistryUnreachable):  # registered, but never to be read back
        await registry.register(worker.instance("flowers"))
    assert "PUT" in {request.method for request in agent.requests}
    assert {request.headers["X-Consul-Token"] for request in agent.requests} == {"ours"}
    assert agent.requests[0].query["dc"] == "dc7"
    assert "dc" not in agent.requests[-1].query, "registering is local"


async def test_a_namespace_travels_with_every_call(agent, connect, worker):
    registry = connect(
        agent.url, registry_config=RegistryConfig(namespace="team-a"), call_timeout_s=0.2
    )
    await registry.list("flowers")
    with pytest.raises(RegistryUnreachable):
        await registry.register(worker.instance("flowers"))
    assert len({each.method for each in agent.requests}) == 3
    assert not [each.path_qs for each in agent.requests if each.query.get("ns") != "team-a"]


@pytest.mark.parametrize(
    ("status", "body", "filtered", "error"),
    [
        (200, [{"Resource": "node", "Allow": False}], "false", RegistryDenied),
        (200, [{"Resource": "node", "Allow": True}], "false", None),
        (200, [{"Resource": "node", "Allow": True}], "true", RegistryDenied),
        (200, "nonsense", "false", None),
        (401, "ACL support disabled", "false", None),
        (404, None, "false", None),
        (405, None, "true", RegistryDenied),
        (403, "ACL not found", "false", RegistryDenied),
        (500, "no leader", "false", RegistryError),
    ],
)
async def test_an_empty_list_is_believed_only_if_the_token_may_read_it(
    agent, connect, status, body, filtered, error
):
    def answer(request):
        if request.method == "POST":
            return web.json_response(body, status=status)
        headers = INDEX | {"X-Consul-Results-Filtered-By-ACLs": filtered}
        return web.json_response([], headers=headers)

    agent.answer = answer
    if error is None:
        assert not (await connect(agent.url).list("flowers")).known
    else:
        with pytest.raises(RegistryError) as caught:
            await connect(agent.url).list("flowers")
        assert type(caught.value) is error


async def test_a_resolve_asks_the_leader_first_and_then_any_server(agent, connect):
    def answer(request):
        if "stale" not in request.query and request.method == "GET":
            return web.Response(status=500, text="No cluster leader")
        return web.json_response([], headers=INDEX)

    agent.answer = answer
    assert not (await connect(agent.url).list("flowers")).known
    assert ["stale" in each.query for each in agent.requests[:2]] == [False, True]


async def test_an_instance_that_does_not_fit_reaches_no_agent(agent, connect, worker):
    with pytest.raises(InvalidInstance):
        await connect(agent.url).register(worker.instance("flowers", meta={"a.b": "c"}))
    assert agent.requests == []


async def test_an_entry_that_cannot_be_read_back_is_no_success(agent, connect, worker):
    instance = worker.instance("flowers")

    def answer(request):
        entries = [{"Service": {"ID": instance.id}}] if request.method == "GET" else None
        return web.json_response(entries, headers=INDEX)

    agent.answer = answer
    with pytest.raises(RegistryError, match="cannot be read back"):
        await connect(agent.url).register(instance)


@pytest.fixture
async def registration(embedded, agent, connect, worker):
    """A registration at the embedded registry, seen through `agent`, which can be made to fail."""
    agent.failing = False

    async with aiohttp.ClientSession() as session:

        async def forward(request):
            if agent.failing:
                return web.Response(status=500, text="no leader")
            url = embedded.url + request.path_qs
            data = await request.read()
            async with session.request(request.method, url, data=data) as answer:
                headers = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.startswith("X-Consul")
                }
                body = await answer.read()
                return web.Response(status=answer.status, body=body, headers=headers)

        agent.answer = forward
        registry = connect(agent.url, keep_alive_s=0.05)
        registration = await registry.register(worker.instance("flowers"))
        registration.registry = registry
        yield registration
        await registry.aclose()


async def test_a_failing_registry_is_logged_once_and_asked_again(agent, registration, caplog):
    caplog.set_level("INFO")
    agent.failing = True
    before = len(agent.requests)
    await until(lambda: len(agent.requests) >= before + 3)
    agent.failing = False
    await until(lambda: "answers again" in caplog.text)
    warnings = [each for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 1


async def test_a_drain_that_failed_is_tried_again_in_the_background(agent, registration):
    agent.failing = True
    with pytest.raises(RegistryError):
        await registration.drain("leaving")
    agent.failing = False

    async def is_off():
        return not (await registration.registry.list("flowers")).instances

    await until(is_off)


async def test_an_undrain_that_failed_goes_on_draining(agent, registration):
    await registration.drain("leaving")
    agent.failing = True
    with pytest.raises(RegistryError):
        await registration.undrain()
    agent.failing = False
    assert not (await registration.registry.list("flowers")).instances
    await registration.undrain()
    assert (await registration.registry.list("flowers")).instances


async def test_a_deregistration_that_failed_ends_the_background_work_and_can_be_repeated(
    agent, registration
):
    agent.failing = True
    with pytest.raises(RegistryError):
        await registration.deregister()
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not any(name.startswith("registration") for name in names)
    agent.failing = False
    await registration.deregister()
    assert not (await registration.registry.list("flowers")).known


async def test_closing_leaves_the_entry(embedded, connect, worker):
    first = connect(embedded.url)
    await first.register(worker.instance("flowers"))
    first.watch("flowers")
    first.watch_catalog()
    await first.aclose()
    await first.aclose()
    assert (await connect(embedded.url).list("flowers")).instances


@pytest.mark.parametrize("fields", [{"call_timeout_s": 0}, {"keep_alive_s": -1}, {"url": "x"}])
def test_a_wrong_option_is_a_configuration_error(fields):
    with pytest.raises(ConfigurationError):
        ConsulRegistry(**fields)
