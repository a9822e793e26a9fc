"""ACL tokens, TLS and rights: options without a network, then a secured cluster of real agents."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.consul_cluster import SERVERS
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError, RegistryDenied, RegistryUnreachable
from fingerpost.registry import open_registry as open_
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.consul.tls import make_context
from fingerpost.registry.credentials import Token
from fingerpost.registry.documents import LEASE_KEYS

# Options


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"token": "a", "token_file": "b"}, "'b'"),
        ({"token": ""}, "not a valid ACL token"),
        ({"token": "with space"}, "not a valid ACL token"),
        ({"token": "line\nbreak"}, "not a valid ACL token"),
        ({"cert_file": "c.pem"}, "'c.pem' has no key_file"),
        ({"key_file": "k.pem"}, "'k.pem' has no cert_file"),
        ({"verify": False, "ca_file": "ca.pem"}, "'ca.pem'"),
        ({"datacenters": ("dc1", "")}, "datacenter ''"),
        ({"datacenters": ("dc1", "../x")}, "'../x'"),
        ({"datacenters": ("dc1", "dc2", "dc1")}, "twice"),
        ({"namespace": "a&b"}, "namespace 'a&b'"),
        ({"wan_address": "not a host!"}, "wan_address='not a host!'"),
    ],
    ids=str,
)
def test_wrong_options_are_named(fields, said):
    with pytest.raises(ConfigurationError) as caught:
        RegistryConfig(**fields)
    assert said in str(caught.value)
    assert "with space" not in str(caught.value)


def test_a_token_is_shown_by_no_repr():
    assert "s3cret" not in repr(RegistryConfig(token="s3cret"))  # noqa: S106 (no secret)


@pytest.mark.parametrize(
    "fields",
    [
        {"token_file": "missing"},
        {"ca_file": "missing"},
        {"ca_file": "empty"},
        {"cert_file": "missing", "key_file": "missing"},
        {"cert_file": "empty", "key_file": "missing"},
        {"cert_file": "empty", "key_file": "empty"},
        {"token_file": "empty"},
        {"token_file": "binary"},
    ],
    ids=str,
)
def test_a_file_that_is_missing_or_makes_no_sense_is_named(tmp_path, fields):
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    paths: dict[str, Any] = {field: str(tmp_path / name) for field, name in fields.items()}
    with pytest.raises(ConfigurationError) as caught:
        open_("consul+https://127.0.0.1:8501", RegistryConfig(**paths))
    assert any(
        field in str(caught.value) and path in str(caught.value) for field, path in paths.items()
    )


@pytest.mark.parametrize("url", ["consul://127.0.0.1:8500", "http://127.0.0.1:8500"])
def test_tls_options_without_tls_are_refused(url):
    with pytest.raises(ConfigurationError, match=r"consul\+https"):
        open_(url, RegistryConfig(verify=False))


def test_certificates_are_checked_unless_told_otherwise():
    careful, careless = make_context(RegistryConfig()), make_context(RegistryConfig(verify=False))
    assert careful.verify_mode is ssl.CERT_REQUIRED
    assert careful.check_hostname
    assert careful.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert careless.verify_mode is ssl.CERT_NONE


def test_a_token_file_is_read_again_when_it_changes(tmp_path, caplog):
    file = tmp_path / "token"
    file.write_text("first\n")
    token = Token(file=str(file))
    assert token.current() == "first"
    file.write_text("second-token")  # another size, so that a coarse clock does not matter
    assert token.current() == "second-token"
    replacement = tmp_path / "new"
    replacement.write_text("third")
    replacement.replace(file)
    assert token.current() == "third"
    for trouble in ("", None, "two words"):
        file.unlink(missing_ok=True)
        if trouble is not None:
            file.write_text(trouble)
        assert token.current() == "third", "the last good one stays in use"
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1
    assert "two words" not in caplog.text
    file.write_text("fourth")
    assert token.current() == "fourth"


def test_no_token_is_none():
    assert Token().current() is None


# A secured cluster


@pytest.fixture
async def let_in(secured_cluster):
    """`let_in(NAME)`: a registry with the token of that name, or with the options given."""
    made = []

    def make(name=None, url=secured_cluster.url, **fields):
        fields = {
            "ca_file": secured_cluster.ca_file,
            "cert_file": secured_cluster.cert_file,
            "key_file": secured_cluster.key_file,
            "token_file": name and secured_cluster.token_file(name),
        } | fields
        made.append(open_(url, RegistryConfig(**fields)))
        return made[-1]

    yield make
    for registry in made:
        await registry.aclose()


@pytest.fixture
async def consul_api(secured_cluster):
    """`await consul_api(METHOD, PATH, TOKEN, body, node)`: a node's API, token by name."""
    tls = ssl.create_default_context(cafile=secured_cluster.ca_file)
    tls.load_cert_chain(secured_cluster.cert_file, secured_cluster.key_file)
    async with aiohttp.ClientSession() as session:

        async def call(method, path, who="management", body=None, node="client"):
            secret = Path(secured_cluster.token_file(who)).read_text().strip()
            headers = {"X-Consul-Token": secret}
            base = secured_cluster.url_of(node).replace("consul+", "")
            async with session.request(
                method, base + path, json=body, headers=headers, ssl=tls
            ) as answer:
                return answer.status, await answer.text()

        yield call


@pytest.fixture
async def token_with(consul_api, tmp_path):
    """`await token_with(RULES)`: the file of a new token that has these rules and no others."""

    async def make(rules):
        name = f"test-{uuid.uuid4().hex[:8]}"
        status, text = await consul_api(
            "PUT", "/v1/acl/policy", body={"Name": name, "Rules": rules}
        )
        assert status == 200, text
        status, text = await consul_api("PUT", "/v1/acl/token", body={"Policies": [{"Name": name}]})
        assert status == 200, text
        made = json.loads(text)

        async def is_everywhere():
            path = f"/v1/acl/token/{made['AccessorID']}?stale"
            answers = [await consul_api("GET", path, node=node) for node in SERVERS]
            return all(status == 200 for status, _ in answers)

        # An agent that asks a server which does not know the token yet remembers that for 30 s.
        await until(is_everywhere)
        file = tmp_path / name
        file.write_text(made["SecretID"])
        return str(file)

    return make


async def test_a_worker_registers_drains_and_leaves_and_a_reader_sees_it(let_in, worker):
    registry, reader = let_in("worker-digits"), let_in("reader")
    watch = reader.watch("digits")
    assert not (await watch.ready(5)).known
    await registry.catalog()  # as a worker does first
    registration = await registry.register(worker.instance("digits"))
    assert (await reader.list("digits")).instances == (registration.instance,)
    assert "digits" in (await reader.catalog()).services
    await until(lambda: watch.view.instances == (registration.instance,))
    await registration.drain("leaving")
    await until(lambda: watch.view.instances == ())
    await registration.undrain()
    await until(lambda: watch.view.instances != ())
    await registration.deregister()
    await until(lambda: not watch.view.known)
    assert watch.errors == 0


async def test_with_tls_and_rights_a_worker_is_drained_through_another_agent(
    let_in, secured_cluster, worker
):
    registration = await let_in("worker-digits").register(worker.instance("digits"))
    instance_id = registration.instance.id
    url = secured_cluster.url_of("server1")
    with pytest.raises(RegistryDenied, match='service "digits" { policy = "write" }'):
        await let_in("reader", url=url).set_draining(instance_id, "x")
    elsewhere = let_in("worker-digits", url=url)
    await elsewhere.set_draining(instance_id, "new GPU")
    assert (await elsewhere.list("digits")).instances == ()
    await elsewhere.set_draining(instance_id, None)
    assert (await elsewhere.list("digits")).instances == (registration.instance,)
    await registration.deregister()


async def test_a_worker_can_do_nothing_else(let_in, worker, consul_api):
    registry = let_in("worker-digits")
    cats = await let_in("worker-cats").register(worker.instance("cats"))
    with pytest.raises(RegistryDenied, match='service "cats" { policy = "write" }'):
        await registry.register(worker.instance("cats", "2"))
    with pytest.raises(RegistryDenied, match='service "cats" { policy = "read" }'):
        await registry.list("cats")
    cats_id = cats.instance.id
    for method, path in [
        ("PUT", f"/v1/agent/service/deregister/{cats_id}"),
        ("PUT", f"/v1/agent/service/maintenance/{cats_id}?enable=true"),
        ("PUT", f"/v1/agent/check/fail/service:{cats_id}"),
        ("GET", f"/v1/agent/service/{cats_id}"),
        ("PUT", "/v1/agent/maintenance?enable=true"),
        ("PUT", "/v1/agent/leave"),
        ("GET", "/v1/agent/self"),
        ("PUT", "/v1/kv/secret"),
        ("GET", "/v1/kv/secret"),
        ("GET", "/v1/acl/tokens"),
    ]:
        status, text = await consul_api(method, path, "worker-digits")
        assert status == 403, f"{method} {path}: {status} {text}"
    await cats.deregister()


async def test_only_who_may_publishes_the_keys_of_leases(let_in) -> None:
    readers = let_in("reader"), let_in("worker-digits")
    for each in readers:
        assert await each.document(LEASE_KEYS) is None
        with pytest.raises(RegistryDenied):
            await each.publish(LEASE_KEYS, b"mine")
    await let_in("keys").publish(LEASE_KEYS, b"theirs")
    for each in readers:
        assert await each.document(LEASE_KEYS) == b"theirs"


async def test_a_reader_changes_nothing(let_in, worker, consul_api):
    with pytest.raises(RegistryDenied, match='service "digits" { policy = "write" }'):
        await let_in("reader").register(worker.instance("digits"))
    registration = await let_in("worker-digits").register(worker.instance("digits"))
    for path in ("deregister/{}", "maintenance/{}?enable=true"):
        url = f"/v1/agent/service/{path.format(registration.instance.id)}"
        assert (await consul_api("PUT", url, "reader"))[0] == 403
    await registration.deregister()


NODES_READ = 'node_prefix "" { policy = "read" }'


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ('service_prefix "" { policy = "read" }', ['node_prefix "" { policy = "read" }']),
        (NODES_READ, ['service "digits" { policy = "read" }']),
        (f'{NODES_READ} service "cats" {{ policy = "read" }}', ['service "digits"']),
        ('key_prefix "x" { policy = "read" }', ["node_prefix", 'service "digits"']),
    ],
    ids=["no node", "no service", "another service", "neither"],
)
async def test_too_little_right_is_an_error_that_names_it_and_no_empty_list(
    let_in, worker, token_with, rules, missing
):
    registration = await let_in("worker-digits").register(worker.instance("digits"))
    reader = let_in(token_file=await token_with(rules))
    for call in (lambda: reader.list("digits"), lambda: reader.watch("digits").ready(0.5)):
        with pytest.raises(RegistryDenied) as caught:
            await call()
        assert all(rule in str(caught.value) for rule in missing), caught.value
    await registration.deregister()


async def test_a_catalog_that_may_not_be_read_is_an_error(let_in, token_with):
    with pytest.raises(RegistryDenied, match="node_prefix"):
        await let_in(token_file=await token_with('key "x" { policy = "read" }')).catalog()


async def test_a_worker_that_cannot_read_nodes_is_told_so(let_in, worker, token_with):
    token_file = await token_with('service "digits" { policy = "write" }')
    with pytest.raises(RegistryDenied, match=r'node_prefix "" { policy = "read" }'):
        await let_in(token_file=token_file).register(worker.instance("digits"))
    everything = let_in("management")
    registration = await everything.register(worker.instance("digits"))
    await registration.deregister()


async def test_a_service_that_nobody_registered_is_no_matter_of_rights(let_in):
    assert not (await let_in("reader").list("nobody")).known


async def test_a_token_that_consul_does_not_know_is_denied(let_in):
    registry = let_in(token=str(uuid.uuid4()))
    for call in (registry.list("digits"), registry.catalog()):
        with pytest.raises(RegistryDenied, match="ACL not found"):
            await call


async def test_a_rotated_token_needs_no_restart(let_in, token_with, tmp_path):
    file = tmp_path / "token"
    file.write_text(str(uuid.uuid4()))
    registry = let_in(token_file=str(file))
    with pytest.raises(RegistryDenied):
        await registry.list("nobody")
    rules = f'{NODES_READ} service_prefix "" {{ policy = "read" }}'
    Path(await token_with(rules)).rename(file)
    assert not (await registry.list("nobody")).known


async def test_a_certificate_of_another_authority_is_not_believed(let_in):
    registry = let_in("reader", ca_file=None)
    with pytest.raises(RegistryUnreachable, match="ca_file"):
        await registry.list("digits")


async def test_without_a_client_certificate_nobody_is_let_in(let_in):
    registry = let_in("reader", cert_file=None, key_file=None)
    with pytest.raises(RegistryUnreachable, match="certificate"):
        await registry.list("digits")


async def test_rotated_certificates_need_no_restart(
    let_in, secured_cluster, consul_binary, tmp_path, caplog
):
    for command in (["ca", "create"], ["cert", "create", "-cli"]):  # of another authority
        order = [consul_binary, "tls", *command]
        await asyncio.to_thread(subprocess.run, order, cwd=tmp_path, check=True)
    fields = ("ca_file", "cert_file", "key_file")
    ours = {field: Path(getattr(secured_cluster, field)) for field in fields}
    files = {field: tmp_path / field for field in fields}

    def rotate(field, *, stranger=False):
        source = tmp_path / ours[field].name if stranger else ours[field]
        shutil.copy(source, tmp_path / "new")
        (tmp_path / "new").replace(files[field])

    for field in fields:
        rotate(field)
    registry = let_in("reader", **{field: str(file) for field, file in files.items()})
    watch = registry.watch("nobody")
    await watch.ready(5)
    rotate("cert_file", stranger=True)
    assert not (await registry.list("nobody")).known, "the key does not fit: the last pair is used"
    assert "stay in use" in caplog.text
    rotate("key_file", stranger=True)
    with pytest.raises(RegistryUnreachable, match="certificate"):
        await registry.list("nobody")
    rotate("cert_file")
    rotate("key_file")
    assert not (await registry.list("nobody")).known
    rotate("ca_file", stranger=True)
    with pytest.raises(RegistryUnreachable, match="not trusted"):
        await registry.list("nobody")
    rotate("ca_file")
    assert not (await registry.list("nobody")).known
    files["ca_file"].unlink()
    assert not (await registry.list("nobody")).known
    assert watch.errors == 0, "a poll that is held is not disturbed"


async def test_verification_can_be_switched_off(let_in):
    registry = let_in("reader", ca_file=None, verify=False)
    assert not (await registry.list("nobody")).known
