"""Rendezvous hashing: which worker a key belongs to, and which workers a client uses."""

from __future__ import annotations

from hashlib import blake2b
from heapq import nlargest
from math import log
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["score", "subset"]


class _Named(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def weight(self) -> int: ...


N = TypeVar("N", bound=_Named)


def score(key: str, endpoint: _Named) -> float:
    """The score of `endpoint` for `key`: the highest wins, in proportion to the weights.

    Highest random weight (Thaler and Ravishankar, 1998), weighted by the logarithm method. When
    a worker comes or goes, only its own keys move. Rejected: a hash ring, which needs hundreds of
    points for each worker to be as even, and keeps state.
    """
    digest = blake2b(f"{key}\0{endpoint.id}".encode(), digest_size=8).digest()
    chance = (int.from_bytes(digest) + 1) / (2**64 + 1)
    return -endpoint.weight / log(chance)


def subset(endpoints: Sequence[N], client_id: str, size: int) -> Sequence[N]:
    """The `size` endpoints that this client uses; all if there are no more than that.

    Each client draws its own, so that with many clients each worker is in about as many subsets.
    With few clients some workers would be in none, which is why a lone client uses all.
    """
    if len(endpoints) <= size:
        return endpoints
    return nlargest(size, endpoints, key=lambda endpoint: score(client_id, endpoint))
