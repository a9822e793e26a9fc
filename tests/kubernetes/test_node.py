"""The chart on a whole node: real pods, probes, rollouts, evictions, and scaling from and to zero.

The tests run in this order on one cluster, under a load of images. `KUBERNETES_REPORT=FILE` before
`make test-kubernetes` writes what was measured.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.table import Table
from tests.images.engines import ROOT, image
from tests.kubernetes.conftest import CHART
from tests.kubernetes.node import Node
from tests.kubernetes.release import Load, Release
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.system

SPACE = "busy"
MODEL = "colours"
RATE = 20.0
HOLD_S = 120
# As KEDA: every 2 s, and down after so long without demand. It takes 300 s there.
POLL_S, COOLDOWN_S = 2.0, 10.0
VALUES = {
    "image": {"repository": image("").rstrip(":")},
    "workers": {
        "cpu": {
            "replicas": 2,
            "only": [MODEL],
            "models": {"initImage": {"reference": image("models")}},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        }
    },
    "proxy": {"holdForStart": HOLD_S, "resources": {"requests": {"cpu": "50m"}}},
}
DEPLOYMENT = "deployment/fingerpost-worker-cpu"


@pytest.fixture(scope="module")
def release(node: Node) -> Iterator[Release]:
    release = Release(node, SPACE)
    yield release
    release.remove()


def load_on(release: Release, picture: Path, rate: float = RATE) -> Load:
    return Load(release.node, release.url, MODEL, picture, rate)


def test_from_helm_install_to_the_first_answer(
    release: Release, table: Table, picture: Path, tmp_path: Path
) -> None:
    row = table.row("1", "`helm install` until the first image is answered")
    row.done = "Images were on the node already. Two workers with a small ONNX model, two proxies"
    values = tmp_path / "values.json"
    values.write_text(json.dumps(VALUES))
    began = time.monotonic()
    release.node.helm(
        "install", "fingerpost", CHART, "-n", SPACE, "--create-namespace", "-f", values
    )
    row.at_most("helm install returned after", time.monotonic() - began, 60, " s")
    ask = f'curl -sf -m 100 -F data=@{picture} "$(curl -sf -m 100 {release.url})"'
    answer = until_blocking(
        lambda: release.node.run("sh", "-c", ask, check=False).stdout, within_s=180, every_s=0.2
    )
    row.at_most("first answer after", time.monotonic() - began, 90, " s")
    assert json.loads(answer)[0][0] == "red"
    row.count(1, [])
    release.until_ready("worker", 2)
    release.until_ready("proxy", 2)
    row.at_most("restarts of containers", release.restarts(), 0)
    row.check()


def test_a_rolling_update(release: Release, table: Table, picture: Path) -> None:
    row = table.row("2", "rolling update of all workers, then of all proxies")
    row.done = f"`kubectl rollout restart` of both deployments, at {RATE:g} images/s"
    load = load_on(release, picture)
    began = time.monotonic()
    for name in (DEPLOYMENT, "deployment/fingerpost-proxy"):
        release.node.kubectl("rollout", "restart", name, "-n", SPACE)
        release.settle(name)
    row.at_most("both done after", time.monotonic() - began, 300, " s")
    release.until_ready("worker", 2)
    load.into(row, HOLD_S)
    row.check()


def test_eviction_of_each_pod(release: Release, table: Table, picture: Path) -> None:
    row = table.row("3", "eviction of each pod, one after another")
    row.done = "The API's eviction, which the disruption budgets hold back, as `kubectl drain` does"
    load = load_on(release, picture)
    refused = 0
    for component in ("worker", "proxy"):
        for pod in release.pods(component):
            name = pod["metadata"]["name"]
            body = {
                "apiVersion": "policy/v1beta1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": SPACE},
            }
            path = f"/api/v1/namespaces/{SPACE}/pods/{name}/eviction"
            while release.node.kubectl(
                "create", "--raw", path, "-f", "-", given=json.dumps(body), check=False
            ).returncode:
                refused += 1
                time.sleep(1)
                assert refused < 300
    for component in ("worker", "proxy"):
        release.until_ready(component, 2)
    row.note(f"The budgets refused {refused} evictions, which were tried again")
    load.into(row, HOLD_S)
    row.check()


def test_the_kubelet_is_killed(release: Release, table: Table, picture: Path) -> None:
    row = table.row("4", "kubelet killed, until the node is not ready, and started again")
    load = load_on(release, picture)
    began = time.monotonic()
    release.node.kill("kubelet")
    until_blocking(lambda: not release.node.ready(), within_s=120, every_s=0.5)
    until_blocking(lambda: not any(release.ready("worker", n) for n in (1, 2)), within_s=60)
    away_s = time.monotonic() - began
    time.sleep(5)  # images go on while Kubernetes takes every pod for not ready
    release.node.again("kubelet")
    until_blocking(release.node.ready, within_s=120, every_s=0.5)
    for component in ("worker", "proxy"):
        release.until_ready(component, 2)
    row.done = f"Kubernetes took all pods for not ready after {away_s:.0f} s"
    load.into(row, HOLD_S)
    row.check()


def test_from_zero_to_one_and_back(release: Release, table: Table, picture: Path) -> None:
    row = table.row("5", "0 -> 1 -> 0 workers, by the load")
    row.done = (
        "A script plays KEDA: it asks each proxy's `/v1/load` every 2 s, takes the highest "
        "`demand`, and scales to 0 after 10 s without any"
    )
    scale(release, 0)
    release.until_ready("worker", 0)
    until_blocking(lambda: demand(release) == 0, "no demand", within_s=60, every_s=0.5)
    load = load_on(release, picture, 5.0)
    ask = f'curl -sf -m 150 -F data=@{picture} "$(curl -sf -m 150 {release.url})"'
    plain = subprocess.Popen(
        release.node.inside("sh", "-c", ask),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    began = time.monotonic()
    until_blocking(lambda: demand(release) > 0, "demand", within_s=30, every_s=POLL_S)
    scale(release, 1)
    release.until_ready("worker", 1)
    row.at_most("first worker ready after", time.monotonic() - began, 90, " s")
    answer, _ = plain.communicate(timeout=180)
    assert json.loads(answer)[0][0] == "red"  # curl waited
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert demand(release) > 0, "the model is in use"
        time.sleep(POLL_S)
    load.into(row, HOLD_S)
    row.requests += 1
    began, quiet_since = time.monotonic(), None
    while quiet_since is None or time.monotonic() - quiet_since < COOLDOWN_S:
        quiet_since = (quiet_since or time.monotonic()) if demand(release) == 0 else None
        assert time.monotonic() - began < 120
        time.sleep(POLL_S)
    scale(release, 0)
    release.until_ready("worker", 0)
    row.at_most("no worker again after", time.monotonic() - began, 120, " s")
    row.check()


def scale(release: Release, replicas: int) -> None:
    release.node.kubectl("scale", DEPLOYMENT, f"--replicas={replicas}", "-n", SPACE)


def demand(release: Release) -> int:
    """As the ScaledObject of the chart: the highest `demand` that a proxy's pod answers."""
    found = []
    for pod in release.pods("proxy"):
        address = f"http://{pod['status']['podIP']}:12480/v1/load/{MODEL}"
        done = release.node.run("curl", "-sf", "-m", "5", address, check=False)
        if done.returncode == 0:
            found.append(json.loads(done.stdout)["demand"])
    return max(found)


# A server that is not Fingerpost's: any image is red. The image `core` has Python, and no shell.
# It ends on SIGTERM, after the preStop hook. As PID 1 Python itself ignores it, and would serve on
# for 30 s, whatever clients still knew.
_LEGACY = """\
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"ok" if self.path == "/ping" else b"")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b'{"red": 0.9, "blue": 0.1}' if self.path == "/predict" else b"")

    def answer(self, body):
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
ThreadingHTTPServer(("", 9000), Handler).serve_forever()
"""


def test_pods_of_another_server(release: Release, table: Table, picture: Path) -> None:
    """docs/foreign.md, 'In a pod', as it stands, but for the server's image."""
    row = table.row("6", "rolling update of two pods of another server, with `fingerpost register`")
    row.done = f"The manifest of docs/foreign.md; `kubectl rollout restart`, at {RATE:g} images/s"
    text = (ROOT / "docs/foreign.md").read_text("utf-8")
    (shown,) = re.findall(r"```yaml\n(apiVersion: v1\nkind: Service\n.*?)```", text, re.DOTALL)
    service, deployment = yaml.safe_load_all(shown)
    server, _ = deployment["spec"]["template"]["spec"]["containers"]
    server["image"] = "registry.example/fingerpost:core"
    server["command"] = ["python3", "-c", _LEGACY]
    server["lifecycle"]["preStop"]["exec"]["command"] = [
        "python3", "-c", "import time; time.sleep(5)",
    ]  # fmt: skip
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, deployment]})
    release.node.kubectl("apply", "-n", SPACE, "-f", "-", given=given)
    found = f"curl -sf -m 5 -H Accept:text/plain {release.url}/v1/resolve/legacy?n=1"
    ask = f'curl -sf -m 5 -F data=@{picture} "$({found})/predict"'
    answer = until_blocking(
        lambda: release.node.run("sh", "-c", ask, check=False).stdout, within_s=90, every_s=0.5
    )
    assert json.loads(answer)["red"] == 0.9
    release.settle("deployment/legacy")
    load = Load(release.node, release.url, "legacy", picture, RATE)
    release.node.kubectl("rollout", "restart", "deployment/legacy", "-n", SPACE)
    release.settle("deployment/legacy")
    # The hook's 5 s; then at most a minute until this kubelet removes the rest of a pod, and 10 s
    # until it says so.
    until_blocking(lambda: len(legacy_pods(release)) == 2, within_s=90, every_s=0.5)
    load.into(row, 10)
    row.check()


def legacy_pods(release: Release) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = release.node.get("pods", "-n", SPACE, "-l", "app=legacy")["items"]
    return found


def test_the_autoscaler_asks_for_the_workers_metric(release: Release, tmp_path: Path) -> None:
    """Kubernetes' own controller; no adapter is here that would answer it."""
    values = tmp_path / "values.json"
    values.write_text(json.dumps(VALUES))
    scaling = ("--set", "workers.cpu.autoscaling.kind=hpa")
    release.node.helm("upgrade", "fingerpost", CHART, "-n", SPACE, "-f", values, *scaling)
    scale(release, 1)
    name = "horizontalpodautoscalers.v2beta2.autoscaling"

    def said() -> str:
        found = release.node.get(name, "fingerpost-worker-cpu", "-n", SPACE)
        conditions = found["status"].get("conditions") or ()
        return next((each["message"] for each in conditions if each["type"] == "ScalingActive"), "")

    message = until_blocking(said, within_s=90, every_s=1.0)
    assert "fingerpost_worker_in_flight_requests" in message
    assert "custom metrics API" in message
