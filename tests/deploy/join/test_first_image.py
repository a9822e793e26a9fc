"""The first images of a new node, where proxies ask who calls and workers ask for leases."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.issuer import Issuer
from tests.support.join_command import Done, JoinedMachine, run_command
from tests.support.leases import KEY
from tests.support.ports import free_port
from tests.support.repository import write_version
from tests.support.standby import Colours

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.proxy.config import ProxyLeasesConfig
from fingerpost.registry.access import CallersConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.callers.api_keys import hash_key, make_key
from fingerpost.security.key_files import save_signing_key
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import LeasesConfig

pytestmark = pytest.mark.shell

API_KEY = make_key()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cluster whose worker stands in the place of those that systemd would start."""

    registry: str
    proxy: str
    issuer: Issuer
    models: Path


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    issuer = Issuer()
    await issuer.start()
    policy = tmp_path / "callers.toml"
    policy.write_text(
        f'[[issuers]]\nissuer = "{issuer.url}"\naudience = "fp"\n'
        f'[[callers]]\nname = "ops"\nkeys = ["{hash_key(API_KEY)}"]\n'
        f'tokens = [{{ issuer = "{issuer.url}", subject = "anna" }}]\n'
    )
    save_signing_key(KEY, tmp_path / "lease.key")
    models = Path(tempfile.mkdtemp())  # the service's user may read it, in contrast to tmp_path
    models.chmod(0o755)
    write_version(models / "colours", 1)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, models)
        stack.push_async_callback(issuer.stop)
        registry = await stack.enter_async_context(EmbeddedRegistry(port=0))
        proxy = await stack.enter_async_context(
            Proxy(
                ProxyConfig(
                    registry=registry.url,
                    port=0,
                    callers=CallersConfig(policy=str(policy)),
                    leases=ProxyLeasesConfig(key_file=tmp_path / "lease.key"),
                )
            )
        )
        config = WorkerConfig(registry=registry.url, leases=LeasesConfig(required=True))
        worker = Worker.for_object(Colours(), name="colours", config=config)
        await (await stack.enter_async_context(worker)).register()
        yield Place(registry=registry.url, proxy=proxy.url, issuer=issuer, models=models)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JoinedMachine:
    machine = JoinedMachine(tmp_path / "machine")
    machine.install(monkeypatch)
    return machine


async def run(place: Place, command: str, *more: str) -> Done:
    arguments = [command, *more, "--models", str(place.models)]
    return await asyncio.to_thread(run_command, *arguments)


async def test_join_shows_a_proxy_an_api_key_or_a_token(
    place: Place, machine: JoinedMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API key by its variable, and a token of an issuer by a file."""
    join = ("join", place.registry, "--proxy", place.proxy, "--port", str(free_port()))
    done = await run(place, *join)
    assert done.status == 3
    assert "show it a key or token that it knows: --token-file" in done.out
    assert machine.written() == []
    monkeypatch.setenv("FINGERPOST_API_KEY", API_KEY)
    done = await run(place, *join)
    assert (done.status, done.out.count("answered an image in")) == (0, 1), done
    monkeypatch.delenv("FINGERPOST_API_KEY")
    (tmp_path / "token").write_text(place.issuer.token())
    done = await run(place, *join, "--token-file", str(tmp_path / "token"))
    assert (done.status, done.out.count("answered an image in")) == (0, 1), done


async def test_doctor_asks_the_proxy_for_a_lease(place: Place) -> None:
    serving = ("doctor", "--registry", place.registry, "--serving", "10")
    done = await run(place, *serving)
    assert "answers, and takes images only with a lease" in done.out
    done = await run(place, *serving, "--proxy", place.proxy, "--api-key", API_KEY)
    assert "answered an image in" in done.out
    done = await run(place, *serving, "--proxy", place.proxy, "--api-key", make_key())
    assert done.status == 3
    assert re.search(r"error +proxy .*this credential is not known here", done.out), done.out
    assert "--token-file" in done.out
