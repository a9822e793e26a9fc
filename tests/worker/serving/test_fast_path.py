"""The fast path: later requests for a path are answered as the first one was, and as strictly."""

from __future__ import annotations

import pytest

from fingerpost.registry import LoadReport
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
