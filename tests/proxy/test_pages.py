"""Web pages at a proxy: who may ask, and the client's module that it serves."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

import pytest
from tests.proxy.world import World

from fingerpost.registry.http.cors_config import CorsConfig
from fingerpost.registry.version import __version__

APP: Final = "https://app.example"
OTHER: Final = "https://other.example"
ALLOWED: Final = pytest.mark.parametrize(
    "world", [{"cors": CorsConfig(allow_origins=(APP,)), "relay": True}], indirect=True, ids=["app"]
)


async def _named(world: World, path: str, origin: str, method: str = "GET") -> tuple[int, Any]:
    headers = {"Origin": origin, "Accept": "*/*"}
    async with world.http.request(method, path, headers=headers, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Access-Control-Allow-Origin")


@ALLOWED
async def test_a_page_may_look_up_and_another_one_reads_nothing(world: World) -> None:
    await world.add("a")
    await world.until(1)
    for path in ("/", "/v1/resolve/digits", "/v1/services", "/fingerpost.js"):
        assert await _named(world, path, APP) == (200, APP), path
        assert (await _named(world, path, OTHER))[1] is None, path
    assert await _named(world, "/v1/resolve/dogs", APP) == (404, APP)
    assert await _named(world, "/v1/classify/digits", APP, "POST") == (307, APP)
    status, named = await _named(world, "/v1/classify/digits", OTHER, "POST")
    assert (status, named) == (403, None)
    assert await _named(world, "/v1/relay/digits", APP, "POST") == (201, APP)
    assert (await _named(world, "/v1/relay/digits", OTHER, "POST"))[0] == 403


@ALLOWED
async def test_what_a_page_asked_is_not_remembered_for_programs(world: World) -> None:
    await world.add("a")
    await world.until(1)
    for origin in (APP, APP, OTHER, OTHER, APP):
        named = APP if origin == APP else None
        assert await _named(world, "/", origin) == (200, named)
    for _ in range(3):
        async with world.http.get("/", headers={"Accept": "*/*"}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_module_and_its_types_are_served(world: World) -> None:
    for name, kind in (("fingerpost.js", "text/javascript"), ("fingerpost.d.ts", "text/plain")):
        async with world.http.get(f"/{name}") as answer:
            text = await answer.text()
            assert answer.status == 200
            assert answer.content_type == kind
            assert "export class Client" in text
            tag = answer.headers["ETag"]
        async with world.http.get(f"/{name}", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304


def test_the_package_of_npm_has_the_release_of_this_one() -> None:
    folder = files("fingerpost.client") / "javascript"
    package = json.loads((folder / "package.json").read_text())
    assert package["version"] == __version__.partition(".dev")[0]
