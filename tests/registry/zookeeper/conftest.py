"""A ZooKeeper server, registries on it, and its tree as another client sees it."""

from __future__ import annotations

import contextlib

import kazoo.client
import kazoo.exceptions
import pytest
from tests.support import zookeeper_server
from tests.support.optional import not_none

from fingerpost.registry import WatchConfig
from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry

# Fixtures; a name that was imported could not be an argument's too.
zookeeper_program = zookeeper_server.zookeeper_program
zookeeper_url = zookeeper_server.zookeeper_url
zookeeper_process = zookeeper_server.zookeeper_process


@pytest.fixture
def url(zookeeper_url):
    return zookeeper_url


@pytest.fixture
async def connect():
    made = []

    def make(url, **arguments):
        arguments.setdefault("keep_alive_s", 0.2)
        arguments.setdefault("session_timeout_s", 2.0)
        arguments.setdefault(
            "watch_config", WatchConfig(wait_s=10, backoff_cap_s=0.2, self_preservation=None)
        )
        made.append(ZooKeeperRegistry(url, **arguments))
        return made[-1]

    yield make
    for registry in made:
        await registry.aclose()


class Tree:
    """ZooKeeper behind the library's back, through a client of its own."""

    def __init__(self, url):
        hosts, _, root = url.removeprefix("zookeeper://").partition("/")
        self._hosts = hosts
        self.root = "/" + root
        self.client = kazoo.client.KazooClient(hosts)
        self.client.start()

    def close(self):
        self.client.stop()
        self.client.close()

    def names(self, service):
        with contextlib.suppress(kazoo.exceptions.NoNodeError):
            return sorted(not_none(self.client.get_children(f"{self.root}/{service}")))
        return []

    def owner(self, instance):
        stat = self.client.exists(f"{self.root}/{instance.service}/{instance.id}")
        return stat.ephemeralOwner if stat else 0

    def expire(self, registry):
        """End the registry's session for real: a second client takes it over and closes it."""
        other = kazoo.client.KazooClient(self._hosts, client_id=registry._session.client.client_id)
        other.start()
        other.stop()
        other.close()


@pytest.fixture
def tree(url):
    tree = Tree(url)
    yield tree
    tree.close()
