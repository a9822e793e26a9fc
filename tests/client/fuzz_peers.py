"""Answers of peers at random, each from a seed: whatever comes, it is a typed error of that peer.

``python -m tests.client.fuzz_peers --seconds 60`` reads them as the client and the proxy do, from
the bytes on the wire, and prints the seed of what went wrong. `test_fuzz_peers.py` runs some.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import time

import msgspec
import psutil
from tests.support.hostile import ENDLESS, FIXED, reply

from fingerpost.client import ClientConfig
from fingerpost.client.proxy_answers import ProxyAnswers
from fingerpost.client.transport.answer import Answer, AnswerReader
from fingerpost.client.transport.deadlines import DeadlineScheduler
from fingerpost.client.transport.transport import Transport
from fingerpost.client.wire import ResolveAnswer, ResolvedInstance
from fingerpost.errors import FingerpostError, PeerError
from fingerpost.registry import Instance, LoadReport, ModelInfo, WorkerState
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.load import read_load_answer

__all__ = ["LONGEST_S", "PEER", "answer_of", "read"]

PEER = "10.0.0.7:8501"
LONGEST_S = 0.5

_REPORT = LoadReport(rif=1, slots=4, state=WorkerState.READY, boot_id=4711, seq=7)
_INSTANCE = Instance(
    id="one",
    service="digits",
    host="127.0.0.1",
    ports={"http": 1000},
    models=(ModelInfo(name="digits", versions=("1",)),),
)
_LOOKUP = ResolveAnswer(
    service="digits", index=1, age_s=0.0, lease_s=1.0, instances=(ResolvedInstance.of(_INSTANCE),)
)
_SOUND = (
    reply(msgspec.json.encode(_LOOKUP)),
    reply(msgspec.json.encode(_REPORT), "200 OK", f"endpoint-load-metrics: {_REPORT.to_header()}"),
    reply(b'{"services":[{"name":"digits","instances":1,"versions":["1"],"age_s":0.1}]}'),
    reply(b'{"model":"d","version":"1","results":[{"name":"x","predictions":[["a",0.5]]}]}'),
    reply(b'{"error":{"code":"overloaded","message":"no","retryable":true}}', "429 Too Many"),
)
_PIECES = (
    b"[" * 50_000, b'{"a":' * 50_000, b"9" * 400, b"1e999", b"-1", b"NaN", b"null", b"true", b'""',
    b"\xff", b"\\ud800", b"\x00", b"{}", b"[]", b"\r\n", b"1" * 5000, b'"a"', b"\x1b[2J",
)  # fmt: skip


def answer_of(seed: int) -> bytes:
    """An answer on the wire: a sound or a hostile one, with pieces put in, cut or replaced."""
    rng = random.Random(seed)
    endless = [first + again * rng.randrange(20) for first, again in ENDLESS.values()]
    out = bytearray(rng.choice((*_SOUND, *_SOUND, *_SOUND, *FIXED.values(), *endless)))
    body_at = out.find(b"\r\n\r\n") + 4
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        # Mostly in the body, because almost every change of the head makes it invalid HTTP.
        start = body_at if rng.random() < 0.8 else 0
        at = rng.randrange(min(start, len(out)), len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[at:at] = rng.choice(_PIECES)
            case 1:
                del out[at : at + rng.randrange(1, 30)]
            case 2:
                out[at : at + rng.randrange(1, 12)] = rng.choice(_PIECES)
            case _:
                out[at:at] = out[max(0, at - 40) : at]
    head, end, body = bytes(out).partition(b"\r\n\r\n")
    if end and rng.random() < 0.8:  # of the right length, so that it is read
        lines = [each for each in head.split(b"\r\n") if not each.startswith(b"Content-Length")]
        head = b"\r\n".join([*lines, b"Content-Length: %d" % len(body)])
    return head + end + body


def read(wire: bytes, transport: Transport, answers: ProxyAnswers) -> list[str]:
    """Read an answer in every way in which we do; the names of the errors that came of it.

    Raises whatever is not a typed error of the peer.
    """
    try:
        answer = _received(wire)
    except PeerError as error:
        assert PEER in error.message
        return [error.code]
    if answer is None:
        return ["incomplete"]
    codes = []
    received = transport._read(PEER, answer)
    if received.error is not None:
        codes.append(received.error.code)
    if received.report is not None:
        try:
            LoadReport.from_header(received.report)
        except PeerError as error:
            codes.append(error.code)
    for attempt in (
        lambda: read_load_answer(answer.status, "", answer.body, PEER),
        lambda: answers.snapshot(answer.body, "digits", PEER, 0.0),
        lambda: answers.services(answer.body, PEER),
    ):
        try:
            attempt()
        except FingerpostError as error:
            assert isinstance(error, PeerError), error
            assert PEER in error.message
            codes.append(error.code)
    return codes


def _received(wire: bytes) -> Answer | None:
    reader = AnswerReader(PEER)
    for start in range(0, len(wire), 1 << 14):
        if (answer := reader.feed(wire[start : start + (1 << 14)])) is not None:
            return answer
    return None


async def _run(seconds: float) -> None:
    transport = Transport(ClientConfig(), DeadlineScheduler())
    answers = ProxyAnswers(AddressPolicy())
    end = time.monotonic() + seconds
    first = seed = random.SystemRandom().randrange(10**9)
    longest_s = 0.0
    before_mb = psutil.Process().memory_info().rss / 1e6
    while time.monotonic() < end:
        wire = answer_of(seed)
        began = time.process_time()
        try:
            read(wire, transport, answers)
        except BaseException:
            print(f"seed {seed}")
            raise
        took_s = time.process_time() - began
        if took_s > LONGEST_S:
            raise AssertionError(f"seed {seed}: {took_s:.2f} s")
        longest_s = max(longest_s, took_s)
        seed += 1
    grown_mb = psutil.Process().memory_info().rss / 1e6 - before_mb
    print(
        f"{seed - first:,} answers of peers, the slowest read in {longest_s * 1000:.1f} ms of "
        f"processor time; memory grew by {grown_mb:.0f} MB"
    )
    if grown_mb > 100:
        raise AssertionError("memory grows")
    await transport.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    logging.disable()  # every rejected entry is logged
    asyncio.run(_run(parser.parse_args().seconds))
