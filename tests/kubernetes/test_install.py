"""The chart on a real API server: installed, upgraded, and left alone by a value that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.conftest import CHART
from tests.support.kubernetes import api_server as real
from tests.support.kubernetes.api_server import ApiServer

pytestmark = pytest.mark.system

# Fixtures; a name that was imported could not be an argument's too.
kubernetes_programs = real.kubernetes_programs
api_server = real.api_server


class Cluster:
    """Commands on an API server."""

    def __init__(self, server: ApiServer, tools: Path, folder: Path) -> None:
        self._tools = tools
        self._config = folder / "kubeconfig"
        cluster = {"server": server.url, "certificate-authority": server.ca_file}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "a", "user": {"token": server.token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "a"}}],
        }
        self._config.write_text(json.dumps(content))
        self._config.chmod(0o600)

    def __call__(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._tools / program, *(str(each) for each in arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "KUBECONFIG": str(self._config)},
        )

    def versions(self, space: str) -> dict[str, str]:
        """The resource version of each object of the namespace that the chart makes."""
        kinds = "deployments,services,roles,rolebindings,poddisruptionbudgets,networkpolicies"
        done = self("kubectl", "get", kinds, "-n", space, "-o", "json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return {
            f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
            for each in found
        }


def test_a_wrong_value_changes_nothing_and_a_right_one_what_it_says(
    api_server: ApiServer, tools: Path, tmp_path: Path
) -> None:
    cluster = Cluster(api_server, tools, tmp_path)
    wrong = ("--set", "proxy.replica=3")
    where = ("fingerpost", CHART, "-n", "chart")
    refused = cluster("helm", "install", *where, "--create-namespace", *wrong)
    assert refused.returncode
    assert "'replica' not allowed" in refused.stderr
    assert cluster("kubectl", "get", "namespace", "chart").returncode  # there is not even that
    made = cluster("helm", "install", *where, "--create-namespace")
    assert made.returncode == 0, made.stderr
    assert "curl -F data=@image.png" in made.stdout
    before = cluster.versions("chart")
    assert {"Deployment/fingerpost-proxy", "Deployment/fingerpost-worker-cpu"} <= before.keys()
    for values in (wrong, ("--set", "workers.cpu.terminationGracePeriodSeconds=3")):
        assert cluster("helm", "upgrade", *where, *values).returncode
    assert cluster.versions("chart") == before
    tls = "tls.enabled=true,tls.mutual=true,tls.trustDomain=example.org"
    secured = cluster("helm", "upgrade", *where, "--dry-run=server", "--set", tls)
    told = "https://fingerpost-proxy.chart.svc:12480 --tls-ca ca.crt --tls-cert client.crt"
    assert told in secured.stdout
    assert "--trust-domain example.org" in secured.stdout
    changed = cluster("helm", "upgrade", *where, "--set", "proxy.replicas=3")
    assert changed.returncode == 0, changed.stderr
    after = cluster.versions("chart")
    assert {name for name in before if before[name] != after[name]} == {
        "Deployment/fingerpost-proxy"
    }
    assert cluster("helm", "rollback", "fingerpost", "1", "-n", "chart").returncode == 0
    gone = cluster("helm", "uninstall", "fingerpost", "-n", "chart")
    assert gone.returncode == 0, gone.stderr
    assert cluster.versions("chart") == {}


def test_keys_that_were_published_before_it_stay(
    api_server: ApiServer, tools: Path, tmp_path: Path
) -> None:
    """`fingerpost keys init` may come first: proxies and workers find the key at their start."""
    cluster = Cluster(api_server, tools, tmp_path)
    cluster("kubectl", "create", "namespace", "keys")
    key = ("--key", tmp_path / "lease.key", "--registry", "kubernetes://keys")
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}
    made = subprocess.run(
        [sys.executable, "-m", "fingerpost", "keys", "init", *map(str, key)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr

    def published() -> object:
        done = cluster("kubectl", "get", "cm", "fingerpost-lease-keys", "-n", "keys", "-o", "json")
        return json.loads(done.stdout)["binaryData"]

    before = published()
    where = ("fingerpost", CHART, "-n", "keys")
    for step in (
        ("install", *where),
        ("upgrade", *where, "--set", "proxy.replicas=3"),
        ("rollback", "fingerpost", "1", "-n", "keys"),
        ("uninstall", "fingerpost", "-n", "keys"),
        ("install", *where),
        ("uninstall", "fingerpost", "-n", "keys"),
    ):
        done = cluster("helm", *step)
        assert done.returncode == 0, done.stderr
        assert published() == before, step
