"""Web pages at a worker: what a browser asks before it sends, and what it lets a page read."""

from __future__ import annotations

from typing import Final

import aiohttp
import pytest
from yarl import URL

from fingerpost.registry.http.cors_config import CorsConfig
from tests.support.colours import encoded
from tests.support.rig import serving

APP: Final = "https://app.example"
OTHER: Final = "https://other.example"
CLASSIFY: Final = "/v1/classify/colours"


@pytest.mark.parametrize(("allowed", "named"), [((APP,), APP), (("*",), "*")])
async def test_a_page_may_send_images_and_read_what_a_client_reads(
    allowed: tuple[str, ...], named: str
) -> None:
    config = CorsConfig(allow_origins=allowed)
    async with serving(cors=config) as rig, aiohttp.ClientSession(rig.url) as http:
        asked = {
            "Origin": APP,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,fingerpost-deadline-ms",
        }
        async with http.options(CLASSIFY, headers=asked) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == named
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            sent = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert {"authorization", "fingerpost-deadline-ms", "fingerpost-boot-id"} <= {*sent}
        # From the second time on a program's request takes the fast path, which names no page.
        for origin in (None, None, APP, APP):
            headers = {} if origin is None else {"Origin": origin}
            async with http.post(CLASSIFY, data=encoded("red"), headers=headers) as answer:
                assert answer.status == 200
                read = answer.headers.get("Access-Control-Allow-Origin")
                assert read == (None if origin is None else named)
                if origin:
                    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
                    assert "endpoint-load-metrics" in exposed
                    assert "retry-after" in exposed
        headers = {"Origin": APP}
        async with http.post("/v1/classify/cats", data=b"x", headers=headers) as answer:
            assert answer.status == 404
            assert answer.headers["Access-Control-Allow-Origin"] == named, "the page sees why"


async def test_another_page_is_named_nowhere() -> None:
    config = CorsConfig(allow_origins=(APP,))
    async with serving(cors=config) as rig, aiohttp.ClientSession(rig.url) as http:
        asked = {"Origin": OTHER, "Access-Control-Request-Method": "POST"}
        async with http.options(CLASSIFY, headers=asked) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
        for origin in (APP, OTHER):
            headers = {"Origin": origin}
            async with http.post(CLASSIFY, data=encoded("red"), headers=headers) as answer:
                # A cache must not give one page the answer that names another.
                assert answer.headers.getall("Vary") == ["Origin"]
                named = answer.headers.get("Access-Control-Allow-Origin")
                assert named == (APP if origin == APP else None)
                assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/admin",
        "/v1/admin/models/colours/load",
        "/v1/%61dmin/models/colours/versions/7",
        "/instance/1/colours/v1/admin/models/colours/load",
        "/v2/repository/models/colours/unload",
        "/v2/systemsharedmemory/region/a/register",
    ],
)
@pytest.mark.parametrize("allowed", [APP, "*"])
async def test_no_page_may_use_what_is_for_operators(path: str, allowed: str) -> None:
    config = CorsConfig(allow_origins=(allowed,))
    async with serving(cors=config) as rig, aiohttp.ClientSession(rig.url) as http:
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        async with http.options(URL(rig.url + path, encoded=True), headers=asked) as answer:
            assert answer.status == 403
            assert "for no page of another origin" in (await answer.json())["error"]["message"]
            assert not any(name.startswith("Access-Control") for name in answer.headers)
        url = URL(rig.url + path, encoded=True)
        async with http.post(url, headers={"Origin": APP}) as answer:
            assert answer.status >= 400
            assert "Access-Control-Allow-Origin" not in answer.headers
        for other in ("/v1/administer", "/v2/repository/index", "/v1/classify/colours"):
            async with http.options(other, headers=asked) as answer:
                assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (
                    204,
                    allowed,
                )


async def test_by_default_nothing_is_said_of_pages() -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        async with http.options(CLASSIFY, headers=asked) as answer:
            assert answer.status == 405
            assert not any(name.startswith("Access-Control") for name in answer.headers)
        async with http.post(CLASSIFY, data=encoded("red"), headers={"Origin": APP}) as answer:
            assert answer.status == 200
            assert not any(name.startswith("Access-Control") for name in answer.headers)
            assert "Vary" not in answer.headers
