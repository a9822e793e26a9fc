"""A real API server of Kubernetes with its etcd, on free ports, that can lose its memory."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_ports

_GET = Path(__file__).parents[1] / "get-kubernetes"

# Kubernetes 1.20 has EndpointSlices of v1beta1 only. With that turned off, this definition stores
# those of v1 for real, with their watches and their rights; only their validation is missing.
_SLICES_V1: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "endpointslices.discovery.k8s.io",
        "annotations": {
            "api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/99662"
        },
    },
    "spec": {
        "group": "discovery.k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "endpointslices", "kind": "EndpointSlice"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


class ApiServer:
    """etcd and kube-apiserver with RBAC. `token` is an administrator's.

    Args:
        programs: the folder with both.
        folder: where they put their files.
        version: the version of EndpointSlices that it has, `v1` or `v1beta1`.
    """

    def __init__(self, programs: str, folder: Path, *, version: str = "v1") -> None:
        self._programs = Path(programs)
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self.version = version
        self.port, self._etcd_port, self._peer_port = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.token = secrets.token_hex(16)
        self.ca_file = str(folder / "certs" / "apiserver.crt")

    def start(self) -> None:
        """Start both, and wait until they serve; does nothing while they run."""
        if self._running:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        key = self._folder / "sa.key"
        if not key.exists():
            subprocess.run(
                ["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True
            )
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{self.token},admin,1,"system:masters"\n')
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )
        self._run(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self._folder / 'certs'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            # There is no controller that would make the service accounts that pods need.
            "--disable-admission-plugins=ServiceAccount",
            *(["--runtime-config=discovery.k8s.io/v1beta1=false"] if self.version == "v1" else []),
        )
        self._wait(lambda: self._get("/readyz"))
        if self.version == "v1":
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            self._get(path, _SLICES_V1)
            self._wait(lambda: self._get("/apis/discovery.k8s.io/v1/endpointslices"))

    def stop(self) -> None:
        """Kill both; what they stored stays."""
        running, self._running = self._running, []
        for each in reversed(running):
            each.kill()
            each.wait()

    def forget(self) -> None:
        """Remove what was stored by servers that are stopped; their certificate stays."""
        assert not self._running
        shutil.rmtree(self._folder / "etcd", ignore_errors=True)

    @property
    def peak_rss_bytes(self) -> int:
        return sum(_rss(each.pid) for each in self._running)

    def _run(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    [self._programs / name, *arguments],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={"PATH": os.environ.get("PATH", "")},
                )
            )

    def _wait(self, ready: Any) -> None:
        until = time.monotonic() + 60
        while not ready():
            if any(each.poll() is not None for each in self._running) or time.monotonic() > until:
                logs = [each.read_text()[-1500:] for each in self._folder.glob("*.log")]
                self.stop()
                pytest.fail("Kubernetes' API server did not start:\n" + "\n".join(logs))
            time.sleep(0.05)

    def _get(self, path: str, body: Any = None) -> bool:
        """Whether a request succeeds; with a body it creates."""
        request = urllib.request.Request(  # noqa: S310 - https
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            tls = ssl.create_default_context(cafile=self.ca_file)
            with urllib.request.urlopen(request, timeout=5, context=tls) as answer:  # noqa: S310
                return bool(answer.status // 100 == 2)
        except urllib.error.HTTPError as error:
            return body is not None and error.code == 409
        except (OSError, ssl.SSLError):
            return False


def _rss(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture(scope="session")
def kubernetes_programs() -> str:
    """The folder of etcd and kube-apiserver. Where none can be had the test fails."""
    run = subprocess.run([_GET], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(run.stderr)
    return run.stdout.strip()


@pytest.fixture(scope="session")
def api_server(
    kubernetes_programs: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """A server that the whole session shares: use namespaces of your own."""
    server = ApiServer(kubernetes_programs, tmp_path_factory.mktemp("kubernetes"))
    server.start()
    yield server
    server.stop()
