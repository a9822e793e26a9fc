"""The question of a new machine to a proxy: can you reach me? Both ends read and write it here.

`POST /v1/reach?port=N&nonce=HEX` lets the proxy ask `GET /fingerpost-reach/HEX` at port N of the
address that the question came from, and of no other one. With `&measure=1` it then takes
`MEASURED_BYTES` from there (`GET /fingerpost-reach/HEX?measure=1`), and sends as many (`POST`).
Who receives them measures: it alone sees when they come.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MEASURED_BYTES",
    "MEASURE_S",
    "NONCE",
    "REACHED_PATH",
    "REACH_PATH",
    "ReachAnswer",
    "SpeedMeter",
    "filler",
    "reached_body",
]

REACH_PATH: Final = "/v1/reach"
REACHED_PATH: Final = "/fingerpost-reach/"
MEASURED_BYTES: Final = 4_000_000
"""What is sent each way: 0.03 s at 1 Gbit/s, which is enough to tell it from 100 Mbit/s."""

MEASURE_S: Final = 3.0
"""Each way ends after so many seconds, with what has come by then."""

# In which TCP finds its window (slow start, RFC 5681); it does not count.
_WARM_UP_BYTES: Final = 1_000_000
_PIECE: Final = bytes(65_536)
NONCE: Final = re.compile(r"[0-9a-f]{32}")


class ReachAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the proxy found.

    Attributes:
        address: where the question came from, and so what the proxy asked.
        port: the port that it asked.
        reached: whether the one who asks answered there.
        problem: why not.
        answer_s: seconds until it had the answer.
        received_mbit: how fast the caller's bytes came to it, in 10**6 bits a second; 0 where it
            did not measure.
        received_at, answered_at: the proxy's clock when the question came and when it answers, in
            seconds since 1970; with those of the caller they give the offset of the clocks (NTP,
            RFC 5905, section 8).
    """

    address: str
    port: int
    reached: bool
    problem: str = ""
    answer_s: float = 0.0
    received_mbit: float = 0.0
    received_at: float = 0.0
    answered_at: float = 0.0


def reached_body(nonce: str) -> bytes:
    """What is answered at `REACHED_PATH`; other servers do not."""
    return f"fingerpost {nonce}\n".encode()


def filler() -> Iterator[bytes]:
    """`MEASURED_BYTES` zeros, in pieces."""
    left = MEASURED_BYTES
    while left:
        piece = _PIECE[:left]
        left -= len(piece)
        yield piece


class SpeedMeter:
    """How fast bytes come, from what is said of each piece."""

    def __init__(self) -> None:
        self._warm = False
        self._bytes = 0
        self._began = self._last = 0.0

    def add(self, count: int, now: float) -> None:
        """Count a piece of so many bytes, which came at that time, in seconds."""
        if not self._began:
            self._began = self._last = now
            return
        self._bytes += count
        self._last = now
        if not self._warm and self._bytes >= _WARM_UP_BYTES:
            self._warm, self._bytes, self._began = True, 0, now

    @property
    def mbit(self) -> float:
        """In 10**6 bits a second; 0 where nothing came."""
        took_s = self._last - self._began
        return self._bytes * 8 / took_s / 1e6 if took_s > 0 else 0.0
