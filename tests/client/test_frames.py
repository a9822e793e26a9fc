"""The stream's framing: one end wired to the other, without a socket."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.client.frames import (
    HEARTBEAT,
    MAX_HEAD_BYTES,
    Ended,
    Frame,
    FrameDecoder,
    Opened,
    StreamAnswer,
    StreamImage,
    frame_head,
    read_head,
    read_server_head,
)
from fingerpost.client.wire import ErrorBody, ImageAnswer
from fingerpost.errors import BadAnswer, InvalidRequest

LIMIT = 1000


def decoder() -> FrameDecoder:
    return FrameDecoder(max_body_bytes=LIMIT, error=InvalidRequest)


def drain(frames: FrameDecoder) -> list[Frame]:
    found = []
    while (frame := frames.take()) is not None:
        found.append(frame)
    return found


@given(
    bodies=st.lists(st.binary(max_size=2 * LIMIT), max_size=8),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=20),
    beats=st.booleans(),
)
def test_frames_survive_any_cutting(bodies: list[bytes], cuts: list[int], beats: bool) -> None:
    sent = b"".join(
        (HEARTBEAT if beats else b"") + frame_head(StreamImage(key=str(n)), len(body)) + body
        for n, body in enumerate(bodies)
    )
    frames, found, turn = decoder(), [], 0
    while sent:
        size = cuts[turn % len(cuts)]
        frames.feed(sent[:size])
        found += drain(frames)
        sent, turn = sent[size:], turn + 1
    assert not frames.partial
    assert [read_head(frame.head).key for frame in found] == [str(n) for n in range(len(bodies))]
    for frame, body in zip(found, bodies, strict=True):
        if len(body) > LIMIT:
            assert (frame.body, frame.oversize) == (b"", len(body))
        else:
            assert (frame.body, frame.oversize) == (body, 0)


def test_a_body_over_the_limit_is_never_held() -> None:
    frames = decoder()
    frames.feed(frame_head(StreamImage(key="big"), 4_000_000_000))
    for _ in range(100):
        assert frames.take() is None
        frames.feed(bytes(100_000))
        assert len(frames._buffer) == 0
    assert frames.partial


def test_a_head_over_the_limit_is_an_error_at_once() -> None:
    frames = FrameDecoder(max_body_bytes=LIMIT, error=BadAnswer)
    frames.feed((MAX_HEAD_BYTES + 1).to_bytes(4, "big") + bytes(4))
    with pytest.raises(BadAnswer, match="4,097 bytes"):
        frames.take()


def test_an_image_needs_no_head_and_an_empty_image_is_one() -> None:
    frames = decoder()
    frames.feed(bytes(4) + (3).to_bytes(4, "big") + b"abc" + frame_head(StreamImage()))
    assert drain(frames) == [Frame(b"", b"abc"), Frame(b"{}", b"")]


@pytest.mark.parametrize(
    "head",
    [
        Opened(model="colours@3", window=64, heartbeat_s=5.0),
        StreamAnswer(
            seq=3, version="7", result=ImageAnswer(name="a.png", predictions=(("red", 0.5),))
        ),
        Ended(taken=3, reason="draining"),
        Ended(
            taken=0,
            reason="failed",
            error=ErrorBody(code="invalid_request", message="no", retryable=False),
        ),
    ],
)
def test_the_server_s_heads_there_and_back(head: Opened | StreamAnswer | Ended) -> None:
    frames = decoder()
    frames.feed(frame_head(head))
    (frame,) = drain(frames)
    assert read_server_head(frame.head) == head


def test_what_is_no_head() -> None:
    for data in (b"{", b'{"type": "other"}', b"[]"):
        with pytest.raises(msgspec.MsgspecError):
            read_server_head(data)
