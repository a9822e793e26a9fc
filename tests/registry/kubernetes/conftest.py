"""An API server, in this process or real (`--kubernetes real`), and a namespace in it."""

from __future__ import annotations

import pytest
from tests.support.kubernetes import api_server as real
from tests.support.kubernetes.fake_api import TOKEN, FakeApi
from tests.support.kubernetes.namespace import Kubelet, Namespace

from fingerpost.registry import WatchConfig

# Fixtures; a name that was imported could not be an argument's too.
kubernetes_programs = real.kubernetes_programs
api_server = real.api_server


@pytest.fixture
def is_real(request):
    return request.config.getoption("--kubernetes") == "real"


@pytest.fixture
async def fake():
    """An API server in this process, for what a real one cannot be made to do."""
    api = FakeApi()
    await api.start()
    yield api
    await api.stop()


@pytest.fixture
def api(is_real, request):
    """The API server, which others may use too."""
    return request.getfixturevalue("api_server" if is_real else "fake")


@pytest.fixture
async def namespace(api):
    """A new namespace."""
    token, ca_file = getattr(api, "token", TOKEN), getattr(api, "ca_file", None)
    space = Namespace(api.url, token, ca_file=ca_file)
    await space.create()
    yield space
    await space.aclose()


@pytest.fixture
async def kubelet(namespace, worker):
    kubelet = Kubelet(namespace, worker)
    await kubelet.start()
    yield kubelet
    await kubelet.stop()


@pytest.fixture
async def connect(namespace):
    """Make registries of the namespace that look often, and close them at the end."""
    made = []

    def make(url=None, **arguments):
        arguments.setdefault("keep_alive_s", 0.1)
        arguments.setdefault("check_config", None)  # of its own health: see the contract
        arguments.setdefault("watch_config", WatchConfig(wait_s=10, backoff_cap_s=0.2))
        made.append(namespace.registry(url, **arguments))
        return made[-1]

    yield make
    for registry in made:
        await registry.aclose()


def pytest_ignore_collect(collection_path, config):
    """What only a real API server can show is in a folder of its own."""
    real_only = collection_path.name == "real" and config.getoption("--kubernetes") != "real"
    return True if real_only else None
