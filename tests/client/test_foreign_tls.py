"""Foreign workers with TLS: a plain HTTPS server with a certificate, and what is not believed."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.support.certificates import Authority, Pair
from tests.support.colours import encoded
from tests.support.optional import not_none

from fingerpost.client import Client, ClientConfig, JsonAnswer
from fingerpost.errors import FingerpostError
from fingerpost.registry.http.app import bind
from fingerpost.security.tls import TlsConfig

pytestmark = pytest.mark.shell

IMAGE = encoded("red")


@contextlib.asynccontextmanager
async def serving(pair: Pair | None) -> AsyncIterator[int]:
    """Somebody's server, which answers labels at /predict; its port."""

    async def predict(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"daisy": 0.25, "rose": 0.75})

    context = None
    if pair is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.cert, pair.key)
    app = web.Application()
    app.router.add_route("*", "/predict", predict)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = bind("127.0.0.1", 0)
    await web.SockSite(runner, listener, ssl_context=context).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


def client(port: int, ca: Path | None, **meta: str) -> Client:
    more = "".join(f"&{key}={value}" for key, value in meta.items())
    url = f"static://127.0.0.1:{port}?model=flowers&protocol=form&path=/predict{more}"
    return Client(
        registry=url,
        tls=None if ca is None else TlsConfig(ca=str(ca)),
        config=ClientConfig(timeout_s=2.0, wait_for_ready_s=1.0),
    )


async def test_images_go_to_a_server_with_a_certificate_of_the_authority(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    async with serving(ca.issue("server")) as port:
        async with client(port, ca.file, scheme="https") as secure:
            for _ in range(3):
                assert (await secure.classify(IMAGE, "flowers")).label == "rose"
            assert secure.stats.retries == {}
            async with secure.connect("flowers") as worker, aiohttp.ClientSession() as session:
                assert worker.url == f"https://127.0.0.1:{port}"
                assert worker.headers == {}
                url = f"{worker.url}/predict"
                context = not_none(worker.ssl_context)
                async with session.post(url, data=b"x", ssl=context) as answer:
                    assert (await answer.json())["rose"] == 0.75
        async with client(port, ca.file, scheme="https", task="json") as secure:
            found = await secure.infer(IMAGE, "flowers")
            assert isinstance(found, JsonAnswer)
            assert found.value == {"daisy": 0.25, "rose": 0.75}


async def test_other_certificates_get_no_image(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ca, other = Authority(tmp_path), Authority(tmp_path / "other")
    cases = {
        "of another authority": (other.issue("server"), ca.file),
        "of another host": (ca.issue("host", hosts=["example.org"]), ca.file),
        "expired": (ca.issue("old", valid_from_s=-120, valid_to_s=-60), ca.file),
        "not of the system's authorities": (ca.issue("server"), None),
    }
    for name, (pair, trusted) in cases.items():
        async with serving(pair) as port, client(port, trusted, scheme="https") as secure:
            with pytest.raises(FingerpostError) as caught:
                await secure.classify(IMAGE, "flowers")
            text = f"{caught.value} {caught.value.__cause__}"
            assert "certificate" in text, (name, text)
            assert secure.stats.bytes_sent == 0, name


async def test_a_server_without_tls_is_not_spoken_to_in_clear(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    async with serving(None) as port, client(port, ca.file, scheme="https") as secure:
        with pytest.raises(FingerpostError):
            await secure.classify(IMAGE, "flowers")
        assert secure.stats.bytes_sent == 0
