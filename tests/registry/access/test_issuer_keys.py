"""Keys of issuers from a real server: kept, fetched again, and whatever it may answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwk

from fingerpost.registry.access import issuer_keys
from fingerpost.registry.access.issuer_keys import IssuerKeys
from fingerpost.registry.http.app import bind, serve
from fingerpost.security.callers.schema import IssuerTable


def key(kid: str) -> dict[str, object]:
    return {**jwk.ECKey.generate_key("P-256", {"kid": kid}).as_dict(private=False)}


FIRST, SECOND = key("k1"), key("k2")


class Issuer:
    """Answers `/keys` with what a test wants."""

    def __init__(self) -> None:
        self.keys: object = {"keys": [FIRST]}
        self.answer: web.Response | None = None
        self.delay_s = 0.0
        self.requests: list[web.Request] = []
        self.discovered: dict[str, str] = {}

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await asyncio.sleep(self.delay_s)
        if request.path.startswith("/.well-known"):
            return web.json_response(self.discovered)
        return self.answer or web.json_response(self.keys)

    def table(self, **more: Any) -> IssuerTable:
        return IssuerTable(issuer=self.url, audience="fp", jwks_url=f"{self.url}/keys", **more)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture
async def keys() -> AsyncIterator[IssuerKeys]:
    keys = IssuerKeys(lambda: None)
    yield keys
    await keys.aclose()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch as often as a test wants."""
    monkeypatch.setattr(issuer_keys, "_RETRY_S", 0.0)
    monkeypatch.setattr(issuer_keys, "_REFRESH_S", 0.0)


async def test_a_new_key_is_fetched_when_a_token_names_it(
    issuer: Issuer, keys: IssuerKeys, quick: None
) -> None:
    keys.follow({issuer.url: issuer.table()})
    assert await keys.fetch_again(issuer.url)
    found = keys.get(issuer.url)
    assert found is not None
    assert found.find("k1", "ES256") is not None
    assert found.find("k2", "ES256") is None
    issuer.keys = {"keys": [SECOND]}
    assert await keys.fetch_again(issuer.url)
    found = keys.get(issuer.url)
    assert found is not None
    assert found.find("k1", "ES256") is None  # it was withdrawn
    assert found.find("k2", "ES256") is not None


async def test_made_up_key_ids_do_not_flood_an_issuer(issuer: Issuer, keys: IssuerKeys) -> None:
    keys.follow({issuer.url: issuer.table()})
    await asyncio.gather(*(keys.fetch_again(issuer.url) for _ in range(50)))
    for _ in range(50):
        assert not await keys.fetch_again(issuer.url)
    keys.refresh_due()
    await asyncio.sleep(0)
    assert len(issuer.requests) == 1


def bad_answers() -> dict[str, web.Response]:
    return {
        "500": web.Response(status=500),
        "html": web.Response(text="<html>", content_type="text/html"),
        "redirect": web.Response(status=302, headers={"Location": "/elsewhere"}),
        "too large": web.Response(body=b" " * 300_000),
        "compressed": web.Response(body=b"x", headers={"Content-Encoding": "gzip"}),
        "no keys": web.json_response({"keys": []}),
        "symmetric": web.json_response({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}),
    }


@pytest.mark.parametrize(
    "kind", ["500", "html", "redirect", "too large", "compressed", "no keys", "symmetric"]
)
async def test_whatever_it_answers_the_last_good_keys_stay(
    issuer: Issuer, keys: IssuerKeys, quick: None, kind: str
) -> None:
    keys.follow({issuer.url: issuer.table()})
    await keys.fetch_again(issuer.url)
    issuer.answer = bad_answers()[kind]
    await keys.fetch_again(issuer.url)
    assert keys.get(issuer.url) is not None
    assert issuer.url in keys.problems
    assert not any(each.path == "/elsewhere" for each in issuer.requests)
    issuer.answer = None
    await keys.fetch_again(issuer.url)
    assert keys.problems == {}


async def test_an_issuer_that_hangs_is_left_in_time(
    issuer: Issuer, keys: IssuerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "_TIMEOUT_S", 0.2)
    issuer.delay_s = 1.0
    keys.follow({issuer.url: issuer.table()})
    started = time.monotonic()
    await keys.fetch_again(issuer.url)
    assert time.monotonic() - started < 0.9
    assert "no answer within 0.2 s" in keys.problems[issuer.url]


async def test_an_issuer_that_is_gone(issuer: Issuer, keys: IssuerKeys, quick: None) -> None:
    keys.follow({issuer.url: issuer.table()})
    await keys.fetch_again(issuer.url)
    await issuer.stop()
    await keys.fetch_again(issuer.url)
    assert keys.get(issuer.url) is not None
    keys.follow({})
    assert keys.get(issuer.url) is None  # the policy does not name it any more
    await issuer.start()  # for the fixture


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"issuer": "http://evil.example"}, "is of issuer 'http://evil.example'"),
        ({"jwks_uri": ""}, "not a discovery document"),
    ],
)
async def test_a_discovery_document_of_another_issuer(
    issuer: Issuer, keys: IssuerKeys, changed: dict[str, str], says: str
) -> None:
    found = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys", **changed}
    issuer.discovered = {name: value for name, value in found.items() if value}
    keys.follow({issuer.url: IssuerTable(issuer=issuer.url, audience="fp")})
    await keys.fetch_again(issuer.url)
    assert says in keys.problems[issuer.url]
    assert keys.get(issuer.url) is None


async def test_a_bearer_token_for_the_keys_of_kubernetes(
    issuer: Issuer, keys: IssuerKeys, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("kube-token\n")
    keys.follow({issuer.url: issuer.table(token_file=str(token))})
    await keys.fetch_again(issuer.url)
    (request,) = issuer.requests
    assert request.headers["Authorization"] == "Bearer kube-token"


async def test_keys_in_a_file(keys: IssuerKeys, tmp_path: Path, quick: None) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [FIRST]}))
    keys.follow({"x": IssuerTable(issuer="x", audience="fp", jwks_file=str(file))})
    await keys.fetch_again("x")
    assert keys.get("x") is not None
    file.unlink()
    await keys.fetch_again("x")
    assert "x" in keys.problems
    assert keys.get("x") is not None
