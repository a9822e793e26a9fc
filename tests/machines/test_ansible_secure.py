"""The Ansible collection with all that keeps a cluster safe, on one machine.

Consul denies by default and wants certificates both ways, workers and proxies too; leases are
signed, and so are registrations; the proxy asks who calls; ZeroMQ is encrypted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.machines.machine import ROOT, Machine, Machines, run
from tests.machines.playbooks import Playbooks, Release, make_keys, recap
from tests.support.certificates import Authority, Pair, spiffe_worker
from tests.support.digits import write_digits
from tests.support.processes import FINGERPOST
from tests.support.waiting import until_blocking

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

CONSUL = ROOT / "deploy/consul"
ADDRESS = "10.79.0.1"
REGISTRY = "consul+https://127.0.0.1:8501"
TLS = "/etc/consul.d/tls"
COMMAND = "/opt/fingerpost/bin/fingerpost"
# One image over ZeroMQ.
ZEROMQ = """
import asyncio, sys
from fingerpost.client import Client, ClientConfig
from fingerpost.security.tls.config import TlsConfig
url, ca, cert, key, token, own, workers, image = sys.argv[1:]
async def main():
    tls = TlsConfig(ca=ca, cert=cert, key=key, trust_domain="example.org")
    config = ClientConfig(transport="zmq", zmq_key=own, zmq_workers=workers, wait_for_ready_s=5)
    async with Client(url, tls=tls, token_file=token, config=config) as client:
        print("worker", (await client.classify(image, "digits")).address)
asyncio.run(main())
"""


@dataclass
class Secrets:
    """What an operator has in a vault: files of the machine that runs Ansible.

    Attributes:
        folder: has them.
        worker: a certificate of the workers, and of the proxy beside them.
        client: a certificate of a client.
        ca: the authority of the three.
    """

    folder: Path
    worker: Pair
    client: Pair
    ca: Path

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


@dataclass
class Site:
    """The machine, and what Ansible knows of it."""

    machine: Machine
    playbooks: Playbooks
    secrets: Secrets
    common: dict[str, Any]

    def consul(self, *arguments: str, check: bool = True) -> str:
        """Consul's command line there, with the management token once there is one."""
        token = self.secrets.folder / "management-token"
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "CONSUL_HTTP_ADDR": "https://127.0.0.1:8501",
            "CONSUL_CACERT": f"{TLS}/ca.pem",
            "CONSUL_CLIENT_CERT": f"{TLS}/cert.pem",
            "CONSUL_CLIENT_KEY": f"{TLS}/key.pem",
            "CONSUL_HTTP_TOKEN": token.read_text() if token.exists() else "",
        }
        variables = [f"{name}={value}" for name, value in environment.items()]
        return self.machine.run("env", *variables, "consul", *arguments, check=check)

    def grant(self, name: str, rules: str) -> None:
        """Make a policy and a token, which goes into the secrets."""
        self.consul("acl", "policy", "create", "-name", name, "-rules", rules)
        made = self.consul("acl", "token", "create", "-policy-name", name, "-format", "json")
        (self.secrets.folder / f"{name}-token").write_text(json.loads(made)["SecretID"])


@pytest.fixture(scope="module")
def secrets(consul_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    folder = tmp_path_factory.mktemp("secrets")
    inside = ("env", "-C", folder)
    run(*inside, consul_binary, "tls", "ca", "create")
    run(
        *(*inside, consul_binary, "tls", "cert", "create", "-server"),
        f"-additional-ipaddress={ADDRESS}",
    )
    (folder / "gossip-key").write_text(run(consul_binary, "keygen").strip())
    for name in ("lease", "registration"):
        run(
            *(*FINGERPOST, "keys", "init", "--key", folder / f"{name}.key"),
            *("--keys-file", folder / f"{name}-keys.json"),
        )
    for name in ("worker", "client"):
        public = run(*FINGERPOST, "keys", "curve", "--key", folder / f"{name}.curve")
        (folder / f"{name}.public").write_text(public)
    key = run(*FINGERPOST, "caller", "add", "camera", "--callers", folder / "callers.toml")
    (folder / "api-key").write_text(next(word for word in key.split() if word.startswith("fpk_")))
    authority = Authority(folder)
    domain = "spiffe://example.org/fingerpost"
    ids = (spiffe_worker("digits"), f"{domain}/proxy")
    return Secrets(
        folder=folder,
        worker=authority.issue("worker", uris=ids, hosts=(ADDRESS, "127.0.0.1")),
        client=authority.issue("client", uris=(f"{domain}/client/camera",)),
        ca=authority.file,
    )


@pytest.fixture(scope="module")
def site(
    consul_binary: str,
    release: Release,
    wheelhouse: Path,
    secrets: Secrets,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ansible")
    layer = folder / "layer"
    (layer / "srv/fingerpost/models/digits").mkdir(parents=True)
    write_digits(folder / "digits").model.rename(layer / "srv/fingerpost/models/digits/1")
    key = make_keys(folder, layer)
    (folder / "home").mkdir()
    common = {
        "consul_binary": consul_binary,
        "consul_config_files": [str(CONSUL / "cluster/common.hcl")],
        "consul_files": {
            "tls/ca.pem": secrets.read("consul-agent-ca.pem"),
            "tls/cert.pem": secrets.read("dc1-server-consul-0.pem"),
            "tls/key.pem": secrets.read("dc1-server-consul-0-key.pem"),
        },
        "consul_config": {
            "ca_file": f"{TLS}/ca.pem",
            "cert_file": f"{TLS}/cert.pem",
            "key_file": f"{TLS}/key.pem",
            "ports": {"https": 8501},
        },
        "consul_encrypt": secrets.read("gossip-key"),
        "fingerpost_common_wheel": str(release.wheel),
        "fingerpost_common_wheelhouse": str(wheelhouse),
        "fingerpost_common_extras": ["python", "security", "zmq"],
    }
    with Machines(folder / "machines", 1, layer) as machines:
        (machine,) = machines.all
        for file in (secrets.ca, secrets.client.cert, secrets.client.key):
            machine.copy(file, "/root")
        for name in ("api-key", "client.curve", "worker.public"):
            machine.copy(secrets.folder / name, "/root")
        yield Site(machine, Playbooks(folder / "home", key), secrets, common)


def credentials(secrets: Secrets, token: str) -> dict[str, str]:
    """What workers and proxies both have."""
    return {
        "registry-token": secrets.read(token),
        "registry-ca": secrets.read("consul-agent-ca.pem"),
        "registry-cert": secrets.read("dc1-server-consul-0.pem"),
        "registry-key": secrets.read("dc1-server-consul-0-key.pem"),
        "tls-ca": secrets.ca.read_text(),
        "tls-cert": secrets.worker.cert.read_text(),
        "tls-key": secrets.worker.key.read_text(),
        "tls-client-ca": secrets.ca.read_text(),
    }


def test_consul_comes_first_and_the_tokens_are_made(site: Site) -> None:
    """With the servers alone in the inventory, as the collection's README says."""
    site.playbooks.write_inventory({"consul_servers": [site.machine]}, **site.common)
    site.playbooks.run("site.yml")
    made: list[str] = []

    def bootstrapped() -> bool:  # refused until there is a leader
        made[:] = [site.consul("acl", "bootstrap", "-format", "json", check=False)]
        return made[0].lstrip().startswith("{")

    until_blocking(bootstrapped, within_s=60)
    (site.secrets.folder / "management-token").write_text(json.loads(made[0])["SecretID"])
    policies = {name: (CONSUL / f"policies/{name}.hcl").read_text() for name in ("agent", "reader")}
    policies["worker"] = (CONSUL / "policies/worker.hcl").read_text().replace("SERVICE", "digits")
    for name, rules in policies.items():
        site.grant(name, rules)
    site.consul("acl", "set-agent-token", "agent", site.secrets.read("agent-token"))


def write_whole_inventory(site: Site) -> None:
    groups = ("consul_servers", "fingerpost_proxies", "fingerpost_workers")
    secrets = site.secrets
    site.playbooks.write_inventory(
        {group: [site.machine] for group in groups},
        **site.common,
        fingerpost_worker_registry=REGISTRY,
        fingerpost_worker_options={"require_lease": True, "zmq_port": 12690},
        fingerpost_worker_credentials=credentials(secrets, "worker-token")
        | {
            "lease-keys": secrets.read("lease-keys.json"),
            "registration-key": secrets.read("registration.key"),
            "zmq-key": secrets.read("worker.curve"),
            "zmq-clients": secrets.read("client.public"),
        },
        fingerpost_worker_doctor_arguments=[
            "--token-file=/root/api-key",
            "--trust-domain=example.org",
        ],
        fingerpost_proxy_registry=REGISTRY,
        fingerpost_proxy_options={"trust_domain": "example.org"},
        fingerpost_proxy_credentials=credentials(secrets, "reader-token")
        | {
            "callers.toml": secrets.read("callers.toml"),
            "lease-key": secrets.read("lease.key"),
            "registration-keys": secrets.read("registration-keys.json"),
        },
    )


def test_a_machine_serves_with_all_of_it(site: Site) -> None:
    write_whole_inventory(site)
    output = site.playbooks.run("site.yml")
    assert site.secrets.read("worker-token") not in output, "no secret is shown"
    assert "PRIVATE KEY" not in output
    image = "/root/image.png"
    site.machine.run(
        "/opt/fingerpost/bin/python3",
        "-c",
        f"from PIL import Image; Image.new('RGB', (64, 64)).save({image!r})",
    )
    proxy = ("--proxy", f"https://{ADDRESS}:12480", "--tls-ca", f"/root/{site.secrets.ca.name}")
    pair = (
        *("--tls-cert", f"/root/{site.secrets.client.cert.name}"),
        *("--tls-key", f"/root/{site.secrets.client.key.name}"),
    )
    classify = (COMMAND, "classify", "--model", "digits", *proxy)
    said = site.machine.run(*classify, *pair, "--token-file", "/root/api-key", image)
    assert said.startswith(f"{image}: ")
    refused = site.machine.run(*classify, *pair, image, check=False)
    assert "this credential is not known" in refused, site.machine.journal("fingerpost-proxy")
    refused = site.machine.run(*classify, "--token-file", "/root/api-key", image, check=False)
    assert "it asks for a client certificate" in refused


def test_zeromq_takes_images_of_the_clients_it_knows(site: Site) -> None:
    """Its key pair is a credential, as the service's user can read no private key elsewhere."""
    secrets = site.secrets
    files = [f"/root/{each.name}" for each in (secrets.ca, secrets.client.cert, secrets.client.key)]
    python = ("/opt/fingerpost/bin/python3", "-c", ZEROMQ, f"https://{ADDRESS}:12480", *files)
    public = "/root/worker.public"
    image = "/root/image.png"
    said = site.machine.run(*python, "/root/api-key", "/root/client.curve", public, image)
    assert said.startswith(f"worker {ADDRESS}:")
    site.machine.run(COMMAND, "keys", "curve", "--key", "/root/stranger.curve")
    refused = site.machine.run(
        *(*python, "/root/api-key", "/root/stranger.curve", public, image), check=False
    )
    assert "--zmq-clients there" in refused, refused


def test_only_root_reads_what_is_secret(site: Site) -> None:
    for role, secret in (("worker", "zmq-key"), ("proxy", "lease-key")):
        mode = site.machine.run(
            "stat", "-c", "%a %U", f"/etc/fingerpost/credentials/{role}/{secret}"
        )
        assert mode.strip() == "600 root"
    assert site.machine.run("stat", "-c", "%a %G", f"{TLS}/key.pem").strip() == "640 consul"


def test_the_second_run_changes_nothing(site: Site) -> None:
    before = site.machine.property("fingerpost-workers", "MainPID")
    assert all(not each["changed"] for each in recap(site.playbooks.run("site.yml")).values())
    assert site.machine.property("fingerpost-workers", "MainPID") == before


def test_a_credential_that_is_no_longer_named_is_removed(site: Site) -> None:
    worker = site.machine.root / "etc/fingerpost/credentials/worker"
    (worker / "admin-token").write_text("left over\n")
    output = site.playbooks.run("site.yml")
    assert [each["changed"] for each in recap(output).values()] == [1]
    assert not (worker / "admin-token").exists()
