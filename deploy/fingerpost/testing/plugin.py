"""A pytest fixture; `pytest_plugins = ["fingerpost.testing.plugin"]` in `conftest.py` brings it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from fingerpost.testing.sync import SyncFakeCluster, sync_fake_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fingerpost.testing.models import FakeModel

__all__ = ["MakeCluster", "fingerpost_cluster"]


class MakeCluster(Protocol):
    """The type of the fixture `fingerpost_cluster`: `sync_fake_cluster`, already entered."""

    def __call__(
        self,
        models: Mapping[str, FakeModel],
        *,
        workers: int = 1,
        aliases: Mapping[str, Mapping[str, str]] | None = None,
        check_images: bool = False,
        relay: bool = False,
    ) -> SyncFakeCluster:
        """Start a cluster that ends with the test."""
        ...


@pytest.fixture
def fingerpost_cluster() -> Iterator[MakeCluster]:
    """`fingerpost_cluster({"flowers": "daisy"})`: a cluster that ends with the test.

    It runs in a thread of its own, so it serves tests with and without an event loop.
    """
    with ExitStack() as stack:

        def make(
            models: Mapping[str, FakeModel],
            *,
            workers: int = 1,
            aliases: Mapping[str, Mapping[str, str]] | None = None,
            check_images: bool = False,
            relay: bool = False,
        ) -> SyncFakeCluster:
            return stack.enter_context(
                sync_fake_cluster(
                    models,
                    workers=workers,
                    aliases=aliases,
                    check_images=check_images,
                    relay=relay,
                )
            )

        yield make
