"""Mutual TLS and signed leases on a whole node: docs/kubernetes.md, 'TLS and leases'.

The tests run in this order on one release.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.table import Table
from tests.kubernetes.conftest import ROOT
from tests.kubernetes.node import Node
from tests.kubernetes.release import Load, Release
from tests.support.certificates import Authority
from tests.support.waiting import until_blocking
from tests.support.walks import Shell, Step, steps_of

pytestmark = pytest.mark.system

PAGE = ROOT / "docs/kubernetes.md"
SPACE = "secure"
MODEL = "flowers"
DOMAIN = "vision.example.org"
HOST = f"fingerpost-proxy.{SPACE}.svc"
RATE = 20.0


@dataclass
class Secure:
    """The release, and a reader's shell in which its page is pasted, one step after another."""

    release: Release
    shell: Shell
    folder: Path
    steps: list[Step]

    def paste(self) -> str:
        return self.shell.run(self.steps.pop(0).commands)

    def inside(self, *command: object) -> list[str]:
        """A command that knows the name of the proxies' Service: the node has no DNS."""
        hosts = self.folder / "hosts"
        hosts.write_text(f"{self.release.address} {HOST}\n127.0.0.1 localhost\n")
        return self.release.node.inside(*self.before(hosts), *command)

    @staticmethod
    def before(hosts: Path) -> tuple[object, ...]:
        mounted = f'mount --bind {hosts} /etc/hosts && exec "$@"'
        return ("unshare", "--mount", "sh", "-c", mounted, "sh")

    def curl(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """curl with a status as its last line; `ca` trusts our authority."""
        command = self.inside("curl", "-sS", "-m", 10, "-w", "\n%{http_code}", *arguments)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def worker(self) -> str:
        return f"https://{self.release.pods('worker')[0]['status']['podIP']}:8500"

    def serials(self) -> dict[str, str]:
        """The serial number of the certificate that each pod shows."""
        found = {}
        for component, port in (("worker", 8500), ("proxy", 12480)):
            for each in self.release.pods(component):
                address = f"{each['status']['podIP']}:{port}"
                script = (
                    f"openssl s_client -connect {address} -cert ca/client-camera.pem "
                    "-key ca/client-camera-key.pem </dev/null 2>/dev/null | "
                    "openssl x509 -noout -serial"
                )
                done = subprocess.run(
                    self.release.node.inside("sh", "-c", script),
                    cwd=self.folder, capture_output=True, text=True, check=False,
                )  # fmt: skip
                found[each["metadata"]["name"]] = done.stdout.strip()
        return found


# `curl` with what a client of the cluster has.
OURS = (
    "--cacert",
    "ca/ca.pem",
    "--cert",
    "ca/client-camera.pem",
    "--key",
    "ca/client-camera-key.pem",
)


@pytest.fixture(scope="module")
def secure(
    node: Node, tools: Path, picture: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    (folder / "deploy").symlink_to(ROOT / "deploy")
    shutil.copy(node.kubeconfig, folder / "kubeconfig")
    shutil.copy(picture, folder / "red.jpg")
    programs = (tools, Path(sys.executable).parent)
    environment = {
        "PATH": ":".join([*(str(each) for each in programs), os.environ["PATH"]]),
        "KUBECONFIG": str(folder / "kubeconfig"),
        "HOME": str(folder),
    }
    steps = [each for each in steps_of(PAGE.read_text("utf-8")) if each.section == "TLS and leases"]
    release = Release(node, SPACE)
    command = node.inside("unshare", "--mount", "bash")
    with Shell(command, folder=folder, environment=environment) as shell:
        yield Secure(release, shell, folder, steps)
    release.remove()


def test_from_helm_install_to_the_first_answer(secure: Secure, table: Table) -> None:
    row = table.row("7", "`helm install` with mutual TLS and leases until the first image")
    row.done = "The steps of docs/kubernetes.md, with certificates by `fingerpost ca`"
    secure.paste()  # certificates, keys, Secrets
    began = time.monotonic()
    secure.paste()
    (secure.folder / "names").write_text(f"{secure.release.address} {HOST}\n127.0.0.1 localhost\n")
    secure.shell.run(f"mount --bind {secure.folder}/names /etc/hosts")  # in place of a DNS
    said = secure.paste()
    row.at_most("first answer after", time.monotonic() - began, 90, " s")
    assert "red.jpg: red" in said
    row.count(1, [])
    secure.release.until_ready("worker", 2)
    secure.release.until_ready("proxy", 2)
    row.at_most("restarts of containers", secure.release.restarts(), 0)
    row.check()


def test_strangers_are_refused(secure: Secure, table: Table, tmp_path: Path) -> None:
    row = table.row("8", "a stranger: no certificate, a foreign one, no TLS, no lease")
    row.done = "curl, at a proxy and at a worker"
    foreign = Authority(tmp_path).issue(
        "camera", uris=[f"spiffe://{DOMAIN}/fingerpost/client/camera"]
    )
    proxy, worker = f"https://{HOST}:12480", secure.worker()
    refused = 0
    for url in (f"{proxy}/", f"{worker}/"):
        for shown in ((), ("--cert", foreign.cert, "--key", foreign.key)):
            done = secure.curl("-k", *shown, url)
            assert done.returncode in {35, 52, 55, 56}, (done.stdout, done.stderr)
            refused += 1
        plain = secure.curl(url.replace("https", "http"))
        assert plain.stdout.endswith("\n421"), plain.stdout
        refused += 1
    image = ("-F", "data=@red.jpg")
    unleased = secure.curl("-k", *OURS[2:], *image, f"{worker}/")
    assert "lease_required" in unleased.stdout
    assert unleased.stdout.endswith("\n401")
    # The same caller through a proxy, whose URL carries the lease.
    asked = secure.curl(*OURS, proxy).stdout.splitlines()[0]
    assert "/lease/" in asked
    served = secure.curl("-k", *OURS[2:], *image, asked)
    assert served.stdout.startswith('[["red"'), served.stdout
    changed = secure.curl("-k", *OURS[2:], *image, f"{asked[:-40]}{'A' * 40}")
    assert "lease_invalid" in changed.stdout
    row.note(f"{refused + 2} of {refused + 2} strangers refused; the honest caller was served")
    row.count(1, [])
    row.check()


def test_certificates_change_with_their_secrets(
    secure: Secure, table: Table, picture: Path
) -> None:
    row = table.row("9", "new keys and certificates of all pods, by new Secrets")
    hosts = secure.folder / "names"
    ca = secure.folder / "ca"
    load = Load(
        secure.release.node, f"https://{HOST}:12480", MODEL, picture, RATE,
        *("--tls", ca / "ca.pem", ca / "client-camera.pem", ca / "client-camera-key.pem", DOMAIN),
        before=secure.before(hosts),
    )  # fmt: skip
    before = secure.serials()
    assert len(before) == 4
    assert all(before.values())
    began = time.monotonic()
    secure.paste()
    until_blocking(
        lambda: not set(before.values()) & set(secure.serials().values()),
        "all pods show new certificates",
        within_s=180,
        every_s=1.0,
    )
    row.at_most("all pods had new ones after", time.monotonic() - began, 180, " s")
    time.sleep(5)  # images go on with the new ones
    assert secure.serials().keys() == before.keys(), "no pod was replaced"
    load.into(row, 10)
    row.done = f"At {RATE:g} images/s; no pod and no container was restarted"
    row.at_most("restarts of containers", secure.release.restarts(), 0)
    row.check()
