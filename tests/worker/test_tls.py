"""A worker that speaks TLS, as a real Consul agent and a real ZooKeeper check it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from typing import Any

import pytest

from fingerpost.client import Client
from fingerpost.errors import ConfigurationError, InvalidInstance
from fingerpost.registry.config import CheckConfig, RegistryConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.tls import TlsConfig
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import DrainConfig
from tests.support import zookeeper_server
from tests.support.certificates import TRUST_DOMAIN, Authority, spiffe_worker
from tests.support.consul_process import ConsulProcess
from tests.support.tls_cluster import IMAGE, Flowers, serve_with
from tests.support.waiting import until

pytestmark = pytest.mark.consul

zookeeper_program = zookeeper_server.zookeeper_program
zookeeper_url = zookeeper_server.zookeeper_url


@pytest.fixture
def ca(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def agent(consul_binary, tmp_path, ca, monkeypatch):
    """A Consul agent on a machine that trusts the authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    process = ConsulProcess(consul_binary, tmp_path / "consul.log")
    process.start()
    yield process.url
    process.stop()


@contextlib.asynccontextmanager
async def _registered(url, tls, check=None):
    config = WorkerConfig(
        registry=url,
        registry_config=RegistryConfig(**({} if check is None else {"check": check})),
        drain=DrainConfig(lease_s=0.0),
        tls=tls,
    )
    async with Worker.for_object(Flowers(), name="flowers", config=config) as worker:
        await worker.register()
        yield worker


def _checks(agent):
    return list(_get(f"{agent}/v1/agent/checks").values())


def _get(url):
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - ours
        return json.load(answer)


async def test_consul_checks_by_https(agent, ca):
    async with _registered(agent, serve_with(ca.worker("flowers"))) as worker:

        def checked():
            (check,) = _checks(agent)
            return check["Status"] == "passing" and "200 OK" in check["Output"]

        await until(checked)
        (check,) = _checks(agent)
        assert f"https://{worker.instance.address}/health/engine" in check["Output"]
        trust = TlsConfig(ca=str(ca.file), trust_domain=TRUST_DOMAIN)
        async with Client(registry=agent, tls=trust) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
        (entry,) = _get(f"{agent}/v1/catalog/service/flowers")
        assert "https" in entry["ServiceTags"]
        assert entry["ServiceMeta"]["scheme"] == "https"


async def test_an_agent_that_does_not_trust_the_authority_says_so(agent, tmp_path):
    other = Authority(tmp_path, "other")
    async with _registered(agent, serve_with(other.worker("flowers"))):
        await until(lambda: _checks(agent)[0]["Status"] == "critical")
        assert "x509" in _checks(agent)[0]["Output"]


@pytest.mark.parametrize("why", ["mutual", "only a SPIFFE id"])
async def test_what_an_agent_cannot_check_reports_itself(agent, ca, caplog, why):
    if why == "mutual":
        tls = serve_with(ca.worker("flowers"), client_ca=str(ca.file))
    else:
        tls = serve_with(ca.issue("w", uris=[spiffe_worker("flowers")], hosts=()))
    async with _registered(agent, tls):
        assert "reports to Consul's agent" in caplog.text
        (check,) = _checks(agent)
        assert (check["Status"], check["Type"]) == ("passing", "ttl")


async def test_an_agent_with_a_certificate_checks_a_worker_that_asks_for_one(
    consul_binary, ca, tmp_path, monkeypatch
):
    own = ca.issue("agent")
    settings = {
        "enable_agent_tls_for_checks": True,
        "ca_file": str(ca.file),
        "cert_file": str(own.cert),
        "key_file": str(own.key),
    }
    (tmp_path / "agent.json").write_text(json.dumps(settings))
    process = ConsulProcess(consul_binary, tmp_path / "consul.log", config=tmp_path / "agent.json")
    process.start()
    try:
        # With its own TLS an agent expects its `server_name`, or else its node's name.
        pair = ca.issue("w", uris=[spiffe_worker("flowers")], hosts=["127.0.0.1", "node-dc1"])
        tls = serve_with(pair, client_ca=str(ca.file))
        async with _registered(process.url, tls, CheckConfig(mode="https")):
            await until(lambda: "200 OK" in _checks(process.url)[0]["Output"])
            assert _checks(process.url)[0]["Status"] == "passing"
    finally:
        process.stop()


async def test_a_host_name_of_the_certificate_is_given_to_consul(agent, ca):
    """Consul before 1.10, as here, does not take `TLSServerName`: that is said with the remedy."""
    pair = ca.issue("w", hosts=["worker.example.org"])
    with pytest.raises(InvalidInstance, match=r"before 1\.10.*--check ttl"):
        async with _registered(agent, serve_with(pair)):
            pass


@pytest.mark.parametrize("mutual", [False, True])
async def test_beside_zookeeper_a_worker_checks_itself(zookeeper_url, ca, mutual):
    tls = serve_with(ca.worker("flowers"), client_ca=str(ca.file) if mutual else None)
    async with _registered(zookeeper_url, tls) as worker:
        registry: Any = worker._registry
        (registration,) = registry._registrations
        check = registration._check
        assert await asyncio.to_thread(check._check) == ""
        assert worker.instance.speaks_tls


def test_a_worker_needs_a_certificate(ca):
    with pytest.raises(ConfigurationError, match="no certificate to serve with"):
        WorkerConfig(tls=TlsConfig(ca=str(ca.file)))


async def test_a_worker_with_the_certificate_of_another_service_says_so(ca, caplog):
    async with EmbeddedRegistry(port=0) as registry:
        async with _registered(registry.url, serve_with(ca.worker("cats"))):
            pass
        assert "clients and proxies with --trust-domain send nothing here: " in caplog.text
        assert f"issue it one with the URI spiffe://{TRUST_DOMAIN}/fingerpost/worker/flowers" in (
            caplog.text
        )
        caplog.clear()
        async with _registered(registry.url, serve_with(ca.worker("flowers"))):
            pass
        assert "--trust-domain" not in caplog.text
