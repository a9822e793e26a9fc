"""The fast path: its answers are those of the application, and as strict."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fingerpost.registry import LoadReport
from fingerpost.registry.http.cors_config import CorsConfig
from tests.support.colours import encoded
from tests.support.http import is_closed, post_request, raw_connection, read_answer
from tests.support.rig import serving

IMAGE = encoded("red")
CLASSIFY = "/v1/classify/colours"


@pytest.mark.parametrize("path", [CLASSIFY, "/v1/classify/colours@7?top=2", "/"])
async def test_the_second_answer_on_a_path_is_as_the_first(path: str) -> None:
    async with serving() as rig, raw_connection(rig.port) as (reader, writer):
        seen = []
        for _ in range(3):
            writer.write(post_request(path, IMAGE))
            status, headers, body = await read_answer(reader)
            assert status == 200
            assert headers["content-type"] == "application/json"
            seen.append((headers.keys(), body.partition(b"timings")[0]))
            report = LoadReport.from_header(headers["endpoint-load-metrics"])
            assert (report.rif, report.seq) == (0, len(seen))
        assert seen[0] == seen[1] == seen[2]


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with serving() as rig, raw_connection(rig.port) as (reader, writer):
        colours = ("red", "green", "blue", "green")
        writer.write(b"".join(post_request(CLASSIFY, encoded(colour)) for colour in colours))
        for colour in colours:
            status, _, body = await read_answer(reader)
            assert (status, colour in str(body.partition(b"]")[0])) == (200, True)


@pytest.mark.parametrize(
    ("http", "wanted", "said", "stays"),
    [
        ("1.1", "close", "close", False),
        ("1.0", "keep-alive", "keep-alive", True),
        ("1.0", "close", None, False),
    ],
)
async def test_connections_that_end_say_so(
    http: str, wanted: str, said: str | None, *, stays: bool
) -> None:
    async with serving() as rig:
        for _ in range(2):
            async with raw_connection(rig.port) as (reader, writer):
                writer.write(post_request(CLASSIFY, IMAGE, f"Connection: {wanted}", http=http))
                status, headers, _ = await read_answer(reader)
                assert (status, headers.get("connection")) == (200, said)
                if stays:
                    writer.write(post_request(CLASSIFY, IMAGE))
                    assert (await read_answer(reader))[0] == 200
                else:
                    assert await is_closed(reader)


async def test_a_path_that_was_answered_still_refuses() -> None:
    async with serving() as rig, raw_connection(rig.port) as (reader, writer):
        writer.write(post_request(CLASSIFY, IMAGE))
        assert (await read_answer(reader))[0] == 200
        for body, more, expected in (
            (b"no image", (), 415),
            (IMAGE[:50], (), 422),
            (IMAGE, ("Content-Encoding: gzip",), 415),
            (IMAGE, ("Fingerpost-Deadline-Ms: 0",), 504),
        ):
            writer.write(post_request(CLASSIFY, body, *more))
            status, headers, text = await read_answer(reader)
            assert status == expected
            assert text.startswith(b'{"error":{"code":')
            LoadReport.from_header(headers["endpoint-load-metrics"])
        writer.write(post_request(CLASSIFY, IMAGE).replace(b"POST", b"GET", 1))
        assert (await read_answer(reader))[0] == 405
        writer.write(post_request(CLASSIFY, IMAGE, "Expect: 100-continue"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        await reader.readline()
        assert (await read_answer(reader))[0] == 200


async def asked(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], *lines: str
) -> tuple[int, dict[str, str], bytes]:
    reader, writer = connection
    writer.write("\r\n".join((*lines, "Host: x", "", "")).encode())
    return await read_answer(reader)


async def test_the_load_is_one_report_in_body_and_header_and_as_the_application_answers() -> None:
    async with serving() as rig, raw_connection(rig.port) as connection:
        _, headers, body = await asked(connection, "GET /load?from=application HTTP/1.1")
        first = msgspec.json.decode(body)
        for seq in range(first["seq"], first["seq"] + 3):
            fields = msgspec.json.decode(body)
            assert (fields, list(fields)) == ({**first, "seq": seq}, list(first))
            assert LoadReport.from_header(headers["endpoint-load-metrics"]).seq == seq
            status, again, body = await asked(connection, "GET /load HTTP/1.1")
            assert (status, again.keys()) == (200, headers.keys())
            assert again["content-type"] == headers["content-type"] == "application/json"
            headers = again


async def test_the_load_is_refused_by_another_process_and_shown_to_a_page() -> None:
    page = "https://app.example"
    async with (
        serving(cors=CorsConfig(allow_origins=(page,))) as rig,
        raw_connection(rig.port) as connection,
    ):
        get = "GET /load HTTP/1.1"
        assert (await asked(connection, get, "Fingerpost-Boot-Id: 2"))[0] == 421
        assert (await asked(connection, get, "Fingerpost-Boot-Id: 1"))[0] == 200
        _, headers, _ = await asked(connection, get, f"Origin: {page}")
        assert headers["access-control-allow-origin"] == page
        assert (await asked(connection, "PUT /load HTTP/1.1"))[0] == 405
        status, headers, _ = await asked(connection, "GET /load HTTP/1.0")
        assert (status, headers["content-type"]) == (200, "application/json")
        assert await is_closed(connection[0])


async def test_a_head_that_came_before_has_its_own_length_and_deadline_each_time() -> None:
    """What was found out by the same fields must not be kept of these numbers."""

    async def ask(body: bytes, left_ms: int, *fields: str, size: int | None = None) -> int:
        head = post_request(CLASSIFY, b"", f"Fingerpost-Deadline-Ms: {left_ms}", *fields)
        writer.write(head.replace(b": 0\r\n", b": %d\r\n" % (size or len(body)), 1) + body)
        return (await read_answer(reader))[0]

    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n%b\r\n' % IMAGE
        for _ in range(2)
    )
    multipart = parts + b"--x--\r\n"
    async with serving() as rig, raw_connection(rig.port) as (reader, writer):
        assert [await ask(IMAGE, 20_000 - each) for each in range(4)] == [200] * 4
        assert await ask(IMAGE, 0) == 504
        assert await ask(b"", 20_000) == 400
        assert await ask(IMAGE, 20_000) == 200
        # Of several images the whole may be larger than of one.
        kind = "Content-Type: multipart/form-data; boundary=x"
        assert [await ask(multipart, 20_000, kind) for _ in range(4)] == [200] * 4
        padded = multipart.replace(IMAGE, IMAGE + bytes(150_000))
        assert await ask(padded, 20_000, kind) == 200
        assert rig.backend.seen == 4 + 1 + 2 * 5
        assert await ask(IMAGE, 20_000) == 200
        assert await ask(IMAGE, 20_000, size=200_001) == 413
