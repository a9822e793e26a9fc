"""Who may ask a proxy: keys, tokens, models, rights that are taken away, and floods."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.guarded import ALL, OFF, ONE, OPS, POLICY, Guarded, guarded_proxy
from tests.support.issuer import Issuer
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.access import CallersConfig
from fingerpost.security.callers.api_keys import hash_key, make_key

PATHS = [
    ("GET", "/"),
    ("GET", "/v1/resolve/digits"),
    ("GET", "/v1/services"),
    ("GET", "/v1/prometheus/targets"),
    ("POST", "/v1/classify/digits"),
    ("POST", "/v1/relay/digits"),
]
OPEN = ["/health/live", "/health/ready", "/metrics", "/load"]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded_proxy(tmp_path) as guarded:
        yield guarded


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_who_says_nothing_gets_nothing(guarded: Guarded, method: str, path: str) -> None:
    status, text, headers = await guarded.ask(method, path)
    assert (status, json.loads(text)["error"]["code"]) == (401, "unauthorized")
    assert headers["WWW-Authenticate"] == "Bearer"
    assert "digits" not in text.replace(path, "")
    status, text, _ = await guarded.ask(method, path, make_key())
    assert (status, json.loads(text)["error"]["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_disabled_caller_gets_nothing(guarded: Guarded, method: str, path: str) -> None:
    status, text, _ = await guarded.ask(method, path, OFF)
    assert (status, json.loads(text)["error"]["code"]) == (403, "forbidden")
    await until(guarded.lines, "a line")
    assert [line["who"] for line in guarded.lines()] == ["off"]


@pytest.mark.parametrize("path", OPEN)
async def test_health_and_metrics_stay_open(guarded: Guarded, path: str) -> None:
    assert await guarded.status("GET", path) == 200


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_caller_gets_what_it_may(guarded: Guarded, method: str, path: str) -> None:
    wanted = {"/v1/classify/digits": 307, "/v1/relay/digits": 201}.get(path, 200)
    for key in (ALL, ONE):
        assert await guarded.status(method, path, key) == wanted


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/resolve/cats"),
        ("GET", "/v1/resolve/cats@7"),
        ("POST", "/v1/classify/cats"),
        ("POST", "/v1/relay/cats"),
        ("GET", "/v1/resolve/nothing"),
    ],
)
async def test_other_models_are_forbidden_whether_they_exist_or_not(
    guarded: Guarded, method: str, path: str
) -> None:
    status, text, _ = await guarded.ask(method, path, ONE)
    assert (status, json.loads(text)["error"]["code"]) == (403, "forbidden")
    assert "one may not use" in text


async def test_lists_do_not_show_what_a_caller_may_not_use(guarded: Guarded) -> None:
    for path in ("/v1/services", "/v1/resolve/digits", "/v1/prometheus/targets"):
        assert "cats" in (await guarded.ask("GET", path, ALL))[1]
        assert "cats" not in (await guarded.ask("GET", path, ONE))[1]


async def test_the_fast_path_answers_nobody_who_is_unknown(guarded: Guarded) -> None:
    """The bytes of an answered `GET /` are not remembered, neither with nor without a key."""
    port = guarded.world.proxy.port
    for head, wanted in ((f"Authorization: Bearer {ALL}\r\n", b"200"), ("", b"401")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(f"GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n{head}\r\n".encode())
            line = await reader.readline()
            assert line.split()[1] == wanted
            if wanted == b"200":
                guarded.policy.write_text(POLICY.replace(hash_key(ALL), hash_key("another")))

                async def gone() -> bool:
                    return await guarded.status("GET", "/v1/services", ALL) == 401

                await until(gone, "the key is gone")
                wanted = b"401"
            while await reader.readline() not in (b"\r\n", b""):
                pass
            await reader.read(4096)
        writer.close()
        await writer.wait_closed()


async def test_a_held_lookup_ends_with_the_right(guarded: Guarded) -> None:
    _, text, _ = await guarded.ask("GET", "/v1/resolve/digits", ONE)
    held = f"/v1/resolve/digits?index={json.loads(text)['index']}&wait=60s"
    waiting = asyncio.create_task(guarded.ask("GET", held, ONE))
    kept = asyncio.create_task(guarded.ask("GET", held, ALL))
    await until(lambda: guarded.world.measured("fingerpost_proxy_waiting_lookups 2.0"), "held")
    guarded.policy.write_text(POLICY.replace(hash_key(ONE), hash_key("another")))
    async with asyncio.timeout(5):
        assert (await waiting)[0] == 401
        assert (await kept)[0] == 200


async def test_a_broken_policy_keeps_the_last_one_and_says_so(guarded: Guarded) -> None:
    guarded.policy.write_text('[[callers]]\nname = "x"\ntenant = "nobody"\n')
    broken = "fingerpost_policy_broken 1.0"
    await until(lambda: guarded.world.measured(broken), "it says so")
    assert await guarded.status("GET", "/", ALL) == 200
    (problem,) = json.loads((await guarded.ask("GET", "/v1/services", OPS))[1])["problems"]
    assert "there is no tenant 'nobody'" in problem
    assert "the last good policy stays in use" in problem
    assert "problems" not in (await guarded.ask("GET", "/v1/services", ALL))[1]
    guarded.policy.write_text(POLICY)
    await until(lambda: guarded.world.measured("fingerpost_policy_broken 0.0"), "it is mended")


async def test_headers_that_cannot_be(guarded: Guarded) -> None:
    port = guarded.world.proxy.port
    for fields, wanted in (
        (f"Authorization: Bearer {ALL}\r\nAuthorization: Bearer {ALL}\r\n", b"401"),
        (f"Authorization: Bearer {ALL}\r\nauthorization: Bearer x\r\n", b"401"),
        ("Authorization: Basic YTpi\r\n", b"401"),
        ("Authorization: Bearer " + "x" * 8000 + "\r\n", b"401"),
        ("Authorization: Bearer " + "x" * 20_000 + "\r\n", b"400"),
        ("Authorization: Bearer \xff\xfe\r\n", b"401"),
        ("X-Tenant: default\r\nFingerpost-Tenant: shop\r\n", b"401"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /v1/services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n"
        writer.write(head.encode("latin-1"))
        assert (await reader.readline()).split()[1] == wanted, fields[:60]
        writer.close()
        await writer.wait_closed()


async def test_a_flood_of_wrong_keys_is_slowed_and_harms_no_honest_caller(guarded: Guarded) -> None:
    """All of them come from one address, as behind a NAT."""
    flood = [asyncio.create_task(guarded.ask("GET", "/v1/services", make_key())) for _ in range(92)]
    await until(lambda: guarded.world.measured('reason="too_many"'), "refused at once")
    started = time.monotonic()
    for _ in range(20):
        assert await guarded.status("GET", "/", ALL) == 200
    assert time.monotonic() - started < 2
    done, waiting = await asyncio.wait(flood, timeout=0.5)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert {(await each)[0] for each in done} <= {401, 429}
    assert 429 in {(await each)[0] for each in done}


async def test_the_audit_log_has_every_refusal_in_bounded_lines(guarded: Guarded) -> None:
    assert await guarded.status("GET", "/v1/resolve/cats", ONE) == 403
    await until(lambda: len(guarded.lines()) == 1, "a line")
    (line,) = guarded.lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "who": "one",
        "tenant": "shop",
        "role": "",
        "from": "127.0.0.1",
        "action": "resolve",
        "target": "/v1/resolve/cats",
        "result": "refused",
        "detail": "model: one may not use 'cats'",
    }
    assert guarded.audit.stat().st_mode & 0o777 == 0o600
    for _ in range(40):
        await guarded.status("GET", "/v1/resolve/cats", ONE)
    assert len(guarded.lines()) <= 5  # of one caller in 10 s
    assert ALL not in guarded.audit.read_text()
    assert await guarded.world.measured('fingerpost_audit_events_total{result="refused"} 41.0')


async def test_a_start_with_a_broken_policy_fails(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("pipe", "named pipe"), ("missing", "there is no file")):
        config = ProxyConfig(
            registry="http://127.0.0.1:9",
            port=0,
            callers=CallersConfig(policy=str(tmp_path / name)),
        )
        with pytest.raises(ConfigurationError, match=says):
            async with Proxy(config):
                pass


async def test_tokens_of_an_issuer(guarded: Guarded) -> None:
    login = Issuer()
    await login.start()
    guarded.policy.write_text(
        POLICY + f'[[issuers]]\nissuer = "{login.url}"\naudience = "fp"\n'
        f'[[callers]]\nname = "anna"\ntenant = "shop"\n'
        f'tokens = [{{ issuer = "{login.url}", subject = "anna" }}]\n'
    )
    await until(lambda: len(login.requests) >= 2, "discovered")
    assert login.requests[:2] == ["/.well-known/openid-configuration", "/keys"]

    async def works() -> bool:
        return await guarded.status("GET", "/v1/resolve/digits", login.token()) == 200

    await until(works, "a token works")
    assert await guarded.status("GET", "/v1/resolve/cats", login.token()) == 403
    assert await guarded.status("GET", "/", login.token(aud="other")) == 401
    known = login.token()
    assert await guarded.status("GET", "/", known) == 200
    await login.stop()  # an outage stops nobody whose key is known
    assert await guarded.status("GET", "/", known) == 200
