"""Shared memory of a test, which does not outlive it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["SHM", "place", "shared_memory_key"]

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX puts shared memory


@pytest.fixture
def shared_memory_key() -> Iterator[str]:
    """A key that nobody else has, of shared memory that does not outlive the test."""
    key = f"/fingerpost-test-{secrets.token_hex(4)}"
    yield key
    (SHM / key[1:]).unlink(missing_ok=True)


def place(key: str, data: bytes) -> Path:
    """Shared memory of these bytes."""
    path = SHM / key[1:]
    path.write_bytes(data)
    return path
