"""Answers cut anywhere, and what is none: bytes in, answers or `BadAnswer` out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.client.transport.answer import Answer, AnswerReader
from fingerpost.errors import BadAnswer


def read(data: bytes, cuts: tuple[int, ...] = ()) -> tuple[Answer | None, AnswerReader]:
    """The answer in `data`, which comes in pieces."""
    reader = AnswerReader("peer")
    edges = [0, *sorted({min(each, len(data)) for each in cuts}), len(data)]
    for start, end in pairwise(edges):
        if start < end and (answer := reader.feed(data[start:end])) is not None:
            return answer, reader
    return None, reader


names = st.sampled_from(["X", "Endpoint-Load-Metrics", "retry-after", "Server", "Date"])
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
bodies = st.binary(max_size=400)
several_cuts = st.lists(st.integers(1, 1200), max_size=12).map(tuple)


@st.composite
def answers(draw) -> tuple[bytes, Answer]:
    """An answer on the wire, with a length or in chunks, and what it is."""
    status = draw(st.integers(200, 599).filter(lambda each: each not in (204, 304)))
    fields = draw(st.dictionaries(names, values, max_size=6))
    body = draw(bodies)
    wire = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2))
    wire += f"HTTP/1.1 {status} Whatever\r\n".encode()
    wire += "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
    expected = {name.lower().encode(): value.encode() for name, value in fields.items()}
    if draw(st.booleans()):
        wire += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        expected[b"content-length"] = b"%d" % len(body)
    else:
        wire += b"Transfer-Encoding: chunked\r\n\r\n"
        expected[b"transfer-encoding"] = b"chunked"
        cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=4))})
        for start, end in pairwise(cuts):
            wire += b"%x\r\n%b\r\n" % (end - start, body[start:end])
        wire += b"0\r\n\r\n"
    return wire, Answer(status, expected, body)


@given(answers(), several_cuts)
def test_an_answer_is_the_same_wherever_it_is_cut(made, cuts):
    wire, expected = made
    answer, reader = read(wire, cuts)
    assert answer == expected
    assert reader.keep
    assert not reader.begun


@given(answers(), st.data())
def test_an_answer_cut_off_is_never_one(made, data):
    wire, _ = made
    answer, reader = read(wire[: data.draw(st.integers(1, len(wire) - 1))])
    assert answer is None
    with pytest.raises(BadAnswer, match="closed after"):
        reader.end()


@given(st.lists(answers(), min_size=1, max_size=4))
def test_one_connection_carries_one_answer_after_another(several):
    reader = AnswerReader("peer")
    for wire, expected in several:
        assert reader.feed(wire) == expected
        assert reader.keep


@given(bodies, several_cuts)
def test_an_answer_may_end_with_its_connection(body, cuts):
    answer, reader = read(b"HTTP/1.1 200 OK\r\nX-Y: z\r\n\r\n" + body, cuts)
    assert answer is None
    assert reader.end() == Answer(200, {b"x-y": b"z"}, body)
    assert not reader.keep


@given(st.binary(min_size=1, max_size=300), several_cuts)
def test_any_bytes_are_an_answer_or_bad(data, cuts):
    head = b"HTTP/1.1 200 OK\r\n"
    for prefix in (b"", head, head + b"Transfer-Encoding: chunked\r\n\r\n"):
        try:
            read(prefix + data, cuts)
        except BadAnswer as error:
            assert "peer: " in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"<html>",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX Y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_what_is_no_http_is_bad(data):
    with pytest.raises(BadAnswer, match="peer: "):
        read(data)
    with pytest.raises(BadAnswer):
        read(data, tuple(range(len(data))))


_CHUNKS = b"1;extension=b\r\nx\r\n0\r\nZ: trailer\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxnonsense", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS, True),
    ],
)  # fmt: skip
def test_whether_a_connection_may_be_kept(data, keep):
    answer, reader = read(data)
    assert answer is not None
    assert answer.body == b"x"
    assert b"z" not in answer.fields
    assert reader.keep is keep


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
        (b"HTTP/1.1 200 ", b"O" * 1000),
    ],
    ids=["informational", "one field", "many fields", "reason"],
)
def test_a_head_is_read_no_further_than_a_limit(start, rest):
    reader = AnswerReader("peer")
    reader.feed(start or rest)
    fed = 0
    with pytest.raises(BadAnswer, match="head of an answer of more than 65536 bytes"):
        while True:
            reader.feed(rest)
            fed += len(rest)
    assert fed < 70_000


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"Content-Length: 1000000000000\r\n\r\n", b"x" * 100_000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nxy\r\n" * 10_000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"a" * 100_000 + b"\r\nx\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_000),
        (b"\r\n", b"x" * 100_000),
    ],
    ids=["length", "chunks", "extensions", "trailers", "until the end"],
)
def test_a_body_is_read_no_further_than_a_limit(start, rest):
    reader = AnswerReader("peer")
    reader.max_body_bytes = 1_000_000
    reader.feed(b"HTTP/1.1 200 OK\r\n" + start)
    fed = 0
    with pytest.raises(BadAnswer, match="an answer of more than 1065536 bytes"):
        while True:
            reader.feed(rest)
            fed += len(rest)
    assert fed < 1_300_000


def test_an_informational_answer_is_not_the_beginning_of_an_answer():
    interim, final = b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
    for wire, begun in ((interim, False), (interim * 2, False), (interim + final, True)):
        _, reader = read(wire)
        assert (reader.informed, reader.begun) == (True, begun)
    assert reader.feed(b"\r\n") == Answer(200, {b"content-length": b"0"}, b"")
    assert (reader.informed, reader.begun) == (False, False)
    _, reader = read(final)
    assert (reader.informed, reader.begun) == (False, True)
