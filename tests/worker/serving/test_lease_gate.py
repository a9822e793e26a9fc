"""Who is let in, by real requests to a real worker, over all protocols."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import Counter
from yarl import URL

from fingerpost.client.frames import STREAM_TYPE, Ended, FrameDecoder, read_server_head
from fingerpost.errors import BadAnswer
from fingerpost.security.audit.audit_log import AuditLog
from fingerpost.security.caller import Caller, Rights
from fingerpost.security.leases.config import LeaseConfig, LeaseRules
from fingerpost.security.leases.signer import LeaseSigner
from fingerpost.security.leases.verifier import LeaseVerifier, Permit
from fingerpost.worker.telemetry.access_log import AccessLog
from tests.support.colours import encoded
from tests.support.http import post_request, raw_connection, read_answer
from tests.support.leases import KEY, OTHER, lease, signed, verifier, wrong_leases
from tests.support.rig import serving

IMAGE = encoded("red")
V2 = json.dumps(
    {"inputs": [{"name": "image", "shape": [1, 16, 16, 3], "datatype": "FP32", "data": [0] * 768}]}
)
PATHS = {
    "/": IMAGE,
    "/v1/classify/colours": IMAGE,
    "/v1/classify/colours@7?top=1": IMAGE,
    "/v1/models/colours:predict": json.dumps({"instances": [[[[0, 0, 0]] * 16] * 16]}).encode(),
    "/v2/models/colours/infer": V2.encode(),
}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


@pytest.mark.parametrize("name", list(wrong_leases()))
async def test_a_wrong_lease_is_refused_before_the_body_is_read(name: str) -> None:
    token, status, code = wrong_leases()[name]
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        for _ in range(2):  # the second one is not better for having been seen
            async with http.post("/v1/classify/colours", data=IMAGE, headers=bearer(token)) as got:
                error = (await got.json())["error"]
                assert (got.status, error["code"]) == (status, code)
                assert error["retryable"] is False
                assert KEY.kid not in error["message"]
                assert "WWW-Authenticate" in got.headers or status == 403
        expecting = "Expect: 100-continue", *(f"{k}: {v}" for k, v in bearer(token).items())
        async with raw_connection(rig.port) as (reader, writer):
            writer.write(
                post_request("/v1/classify/colours", b"", *expecting).replace(b": 0", b": 9")
            )
            assert (await read_answer(reader))[0] == status
        assert rig.backend.seen == 0


async def test_every_protocol_wants_one_and_takes_one() -> None:
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        for path, body in PATHS.items():
            for headers, status in (
                ({}, 401),
                (bearer(lease("flowers")), 403),
                (bearer(lease()), 200),
            ):
                async with http.post(path, data=body, headers=headers) as response:
                    assert response.status == status, (path, await response.text())
        for path in ("/load", "/health/live", "/health/ready", "/metrics", "/v2/health/live"):
            async with http.get(path) as response:
                assert response.status == 200, path
        async with http.get("/metrics") as response:
            text = await response.text()
        assert 'fingerpost_worker_lease_refused_requests_total{code="lease_required"} 5.0' in text
        stream = {"Content-Type": STREAM_TYPE}
        async with http.post("/v1/stream/colours", data=b"", headers=stream) as response:
            assert response.status == 401
        async with http.post(
            "/v1/stream/colours", data=b"", headers={**stream, **bearer(lease())}
        ) as response:
            assert response.status == 200


async def test_a_url_carries_a_lease_and_no_log_shows_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token, wrong = lease(), signed(key=OTHER)
    path = tmp_path / "access.log"

    def access_log(metrics):  # type: ignore[no-untyped-def]
        return AccessLog(str(path), dropped=metrics.access_log_dropped)

    async with serving(leases=verifier(), access_log=access_log) as rig:
        async with aiohttp.ClientSession(rig.url) as http:
            for each in ("", "/", "/instance/1/colours", "/instance/1/colours?top=1", "?top=1"):
                async with http.post(f"/lease/{token}{each}", data=IMAGE) as response:
                    assert response.status == 200, (each, await response.text())
                    assert token not in await response.text() + str(response.headers)
            for bad in (f"/lease/{wrong}/", f"/lease/{token}x", "/lease/", f"/lease/{token}%0a/"):
                async with http.post(bad, data=IMAGE) as response:
                    assert response.status == 401
                    assert token[-60:] not in await response.text()
            lost = ("/lease/{}/nothing/here", "/lease/x/lease/{}/", "/%6cease/{}/", "//lease/{}/")
            for each in lost:
                url = URL(rig.url + each.format(token), encoded=True)
                async with http.post(url, data=IMAGE) as response:
                    assert response.status == 404, each
                    assert token[-60:] not in await response.text(), each
        for bad in (
            b"POST /lease/%b/ HTTP/9.9\r\n\r\n",
            b"POST / HTTP/1.1\r\nA: Bearer %b\x01\r\n\r\n",
        ):
            async with raw_connection(int(rig.url.rpartition(":")[2])) as (reader, writer):
                writer.write(bad % token.encode())
                status, _, body = await read_answer(reader)
                assert status == 400
                assert token[-60:].encode() not in body
        async with aiohttp.ClientSession(rig.url) as http, http.get("/metrics") as response:
            metrics = await response.text()
        await rig.service._observer.aclose()
    logged = path.read_text()
    assert logged.count("\n") == 9
    for text in (logged, metrics, caplog.text):
        assert token[-60:] not in text
        assert wrong[-60:] not in text


async def test_a_head_that_came_before_is_verified_anew_by_time_key_and_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On one connection, whose heads are the same bytes again and again: see `RepeatedHead`."""
    keys, late_s = [KEY.public], [0.0]
    checks = LeaseVerifier(lambda: keys[0], LeaseRules(), lambda: time.time() + late_s[0])
    asked: list[str] = []
    original = checks.permit

    def permit(token: str, *rest: Any) -> Permit:
        asked.append(token)
        return original(token, *rest)

    monkeypatch.setattr(checks, "permit", permit)
    token, other, acme = lease(), signed(key=OTHER), signed(sub="acme", max_body_bytes=50)

    async def status(service: str, token: str, body: bytes = IMAGE) -> int:
        fields = [f"{name}: {value}" for name, value in bearer(token).items()]
        writer.write(post_request(f"/v1/classify/{service}", body, *fields))
        return (await read_answer(reader))[0]

    async with serving(leases=checks) as rig, raw_connection(rig.port) as (reader, writer):
        assert [await status("colours", token) for _ in range(6)] == [200] * 6
        assert len(asked) == 2  # by the application, and by the first plain request
        assert await status("colours", token, IMAGE + b"\0") == 200  # another length
        assert len(asked) == 2
        # Whatever else comes between on the connection.
        for each, wanted in (("", 401), (other, 401), (token[:-1], 401), (acme, 413)):
            assert [await status("colours", each) for _ in range(3)] == [wanted] * 3
            assert [await status("colours", token) for _ in range(3)] == [200] * 3
        assert [await status("flowers", token) for _ in range(3)] == [403] * 3
        asked.clear()
        assert [await status("colours", token) for _ in range(3)] == [200] * 3
        keys[0] = KEY.public.having(OTHER.public)
        assert [await status("colours", token) for _ in range(2)] == [200] * 2
        assert [await status("colours", other) for _ in range(2)] == [200] * 2
        keys[0] = OTHER.public
        assert [await status("colours", token) for _ in range(2)] == [401] * 2
        keys[0] = KEY.public
        assert [await status("colours", token) for _ in range(2)] == [200] * 2
        late_s[0] = 3600.0
        assert [await status("colours", token) for _ in range(2)] == [401] * 2
        late_s[0] = 0.0
        assert await status("colours", token) == 200


async def test_the_body_may_be_as_large_as_the_lease_says() -> None:
    caller = Caller(tenant="acme", rights=Rights(max_body_bytes=50))
    token = LeaseSigner(lambda: KEY, LeaseConfig(), time.time).sign(caller, "colours")
    async with (
        serving(leases=verifier()) as rig,
        aiohttp.ClientSession(rig.url) as http,
        http.post("/", data=IMAGE, headers=bearer(token.token)) as response,
    ):
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "image_too_large"


async def test_a_stream_ends_with_its_lease_and_what_was_taken_is_answered() -> None:
    ends_soon = signed(exp=int(time.time()) - 28)  # within the 30 s of skew
    async with serving(leases=verifier()) as rig, raw_connection(rig.port) as (reader, writer):
        writer.write(
            b"POST /v1/stream/colours HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            + f"Content-Type: {STREAM_TYPE}\r\nAuthorization: Bearer {ends_soon}\r\n\r\n".encode()
        )
        frame = b"\0\0\0\0" + len(IMAGE).to_bytes(4, "big") + IMAGE
        writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        async with asyncio.timeout(20):
            head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 200 " in head
    frames = FrameDecoder(max_body_bytes=10**6, error=BadAnswer)
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        frames.feed(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    heads = []
    while (found := frames.take()) is not None:
        heads.append(read_server_head(found.head))
    ended = heads[-1]
    assert isinstance(ended, Ended)
    assert (ended.taken, ended.reason) == (1, "failed")
    assert ended.error is not None
    assert ended.error.code == "lease_expired"
    assert [type(each).__name__ for each in heads] == ["Opened", "StreamAnswer", "Ended"]


async def test_a_clock_that_is_wrong_is_said_once_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    token, message = lease(ahead_s=600), ""
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        for _ in range(5):
            async with http.post("/", data=IMAGE, headers=bearer(token)) as response:
                message = (await response.json())["error"]["message"]
    assert "compare the clocks" in message
    assert "NTP" in message
    said = [each for each in caplog.messages if "clocks" in each]
    assert len(said) == 1
    assert token not in said[0]


async def test_a_flood_of_forged_leases_is_no_load_that_others_wait_for() -> None:
    forged = signed()[:-4]
    found: dict[str, object] = {}
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        for number in range(400):
            headers = bearer(f"{forged}{number:03}A")
            async with http.post("/", data=IMAGE, headers=headers) as response:
                found = (await response.json())["error"]
                if response.status == 429:
                    break
        assert (found["code"], found.get("limit")) == ("overloaded", "wrong_leases")
        assert found["retry_after_s"] == 1.0
        assert rig.service.admission._contended == {}


async def test_refusals_are_in_the_audit_log_without_the_lease(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    audit = AuditLog(str(file), dropped=Counter("dropped", "dropped", registry=None))
    wrong = signed(key=OTHER)
    async with (
        serving(leases=verifier(), audit=audit) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        for token in ("", *[wrong] * 10, lease("flowers"), lease()):
            async with http.post("/v1/classify/colours", data=IMAGE, headers=bearer(token)):
                pass
    audit.write("rollback", "flowers", "refused", source="127.0.0.1")  # not hidden by the images
    audit.close()
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert wrong[-60:] not in file.read_text()
    assert [each["detail"].partition(":")[0] for each in found] == [
        "lease_required",
        *["lease_invalid"] * 4,
        "",
        "7 more refusals of images",
    ]
    assert (
        found[0].items()
        >= {
            "action": "image",
            "target": "colours",
            "result": "refused",
            "from": "127.0.0.1",
        }.items()
    )
