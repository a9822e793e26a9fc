"""Requests whose path says for which process and model they are meant."""

from __future__ import annotations

import json

import aiohttp
import pytest
from yarl import URL

from tests.support.colours import encoded
from tests.support.rig import serving

IMAGE = encoded("red")
MINE = "/instance/1/colours"


async def test_an_image_gets_the_answer_of_the_root_path() -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        form = aiohttp.FormData()
        form.add_field("data", IMAGE, filename="red.png")
        for body in (IMAGE, form):
            async with http.post(MINE, data=body) as response:
                assert response.status == 200, await response.text()
                assert (await response.json())[0][0] == "red"
        async with http.post(f"{MINE}?top=1", data=IMAGE) as response:
            assert len(await response.json()) == 1


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("POST", "/"),
        ("POST", "/v1/classify/colours?top=2"),
        ("POST", "/v1/classify/colours@7"),
        ("GET", "/v2/models/colours"),
        ("GET", "/v1/models/colours"),
        ("GET", "/load"),
    ],
)
async def test_every_path_may_come_after_it(method: str, rest: str) -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        data = IMAGE if method == "POST" else None
        async with http.request(method, rest, data=data) as response:
            plain = json.loads(await response.read())
        async with http.request(method, f"{MINE}{rest}", data=data) as response:
            assert response.status == 200, await response.text()
            assert type(plain) is type(json.loads(await response.read()))
        async with http.request(method, f"/instance/2/colours{rest}", data=data) as response:
            assert response.status == 421
            error = json.loads(await response.read())["error"]
            assert "boot id 2" in (error["message"] if isinstance(error, dict) else error)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/instance/2/colours", 421, "misdirected"),
        ("/instance/2/flowers", 421, "misdirected"),
        ("/instance/1/flowers", 404, "unknown_model"),
        ("/instance/1", 404, "unknown_path"),
        ("/instance/x/colours", 404, "unknown_path"),
        ("/instance/1/../colours", 404, "unknown_path"),
    ],
)
async def test_another_process_or_model_is_refused(path: str, status: int, code: str) -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        url = f"{rig.url}{path}"
        async with http.post(URL(url, encoded=True), data=IMAGE) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == code


async def test_a_body_that_curl_announces_is_refused_before_it_is_sent() -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        async with http.post("/instance/2/colours", data=IMAGE, expect100=True) as response:
            assert response.status == 421
        async with http.post(MINE, data=IMAGE, expect100=True) as response:
            assert response.status == 200
