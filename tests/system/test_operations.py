"""What an operator does to a running cluster, by the commands the documentation gives."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.consul_cluster import ConsulCluster
from tests.support.digits import Digits
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.waiting import until_blocking
from tests.support.zookeeper_server import zookeeper_program, zookeeper_url  # noqa: F401 - fixtures


def fingerpost(*arguments: object, status: int = 0) -> str:
    """Run a command to its end; return what it said, on standard error where it had to fail."""
    run = subprocess.run(
        [*FINGERPOST, *(str(each) for each in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == status, run
    assert "Traceback" not in run.stderr
    return run.stderr if status else run.stdout


def classify(address: str, image: Path) -> str:
    with urllib.request.urlopen(f"http://{address}/", image.read_bytes(), 10) as answer:
        return str(json.load(answer)[0][0])


@pytest.fixture(params=["embedded", "consul", "zookeeper"])
def registry(request: pytest.FixtureRequest, processes: Processes) -> str:
    if request.param == "embedded":
        return processes.registry()
    return str(request.getfixturevalue(f"{request.param}_url"))


def test_drain_and_undrain_from_afar(registry: str, processes: Processes, digits: Digits) -> None:
    name = f"drained-{free_port()}"
    for _ in range(2):
        processes.worker(registry, digits.model, "--name", name, "--lease", 0)
    proxy = processes.proxy(registry, "--service", name)
    victim, other = processes.workers(proxy, 2, name)
    said = fingerpost("drain", victim["id"], "--registry", registry, "--reason", "new GPU")
    assert victim["id"] in said
    (left,) = processes.workers(proxy, 1, name)
    assert left["id"] == other["id"]
    assert classify(victim["address"], digits.images[0]) == "0"  # it finishes what it is sent
    fingerpost("undrain", victim["id"], "--registry", registry)
    processes.workers(proxy, 2, name)
    said = fingerpost("drain", "nobody-here", "--registry", registry, status=1)
    assert "nobody-here" in said


def test_a_second_sigterm_ends_at_once(processes: Processes, digits: Digits) -> None:
    registry = processes.registry()
    worker = processes.worker(registry, digits.model, "--lease", 60)
    proxy = processes.proxy(registry)
    processes.workers(proxy, 1)
    worker.signal(signal.SIGTERM)
    until_blocking(lambda: "draining" in worker.output())
    started = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM
    assert time.monotonic() - started < 2


def test_status_live(processes: Processes, digits: Digits) -> None:
    registry = processes.registry()
    worker = processes.worker(registry, digits.model, "--lease", 0)
    proxy = processes.proxy(registry)
    processes.workers(proxy, 1)
    status = processes.start(
        "status", "--watch", "--json", "--interval", 0.1, "--registry", registry
    )

    def looks() -> list[Any]:
        return [json.loads(line) for line in status.output().splitlines() if line.endswith("]")]

    until_blocking(lambda: looks() and looks()[-1][0]["workers"][0]["load"]["state"] == 1)
    worker.signal(signal.SIGTERM)
    until_blocking(lambda: looks()[-1] == [] or looks()[-1][0]["workers"] == [])
    status.signal(signal.SIGINT)
    assert status.wait() == 0
    assert "Traceback" not in status.output()
    table = fingerpost("status", "--proxy", proxy)
    assert "none healthy" in table or "No service" in table


def test_a_secured_cluster(
    processes: Processes, digits: Digits, secured_cluster: ConsulCluster
) -> None:
    tls = (
        "--registry-ca-file", secured_cluster.ca_file,
        "--registry-cert-file", secured_cluster.cert_file,
        "--registry-key-file", secured_cluster.key_file,
    )  # fmt: skip

    def access(name: str) -> tuple[str, ...]:
        return (*tls, "--registry-token-file", secured_cluster.token_file(name))

    url = secured_cluster.url
    worker = processes.worker(url, digits.model, "--lease", 0, *access("worker-digits"))
    proxy = processes.proxy(url, "--service", "digits", *access("reader"))
    (told,) = processes.workers(proxy, 1)
    assert classify(told["address"], digits.images[0]) == "0"
    listed = fingerpost("resolve", "digits", "--registry", url, *access("reader"))
    assert listed.strip() == told["address"]
    # With a token that may not read it, and without a certificate: an error that says so, never
    # an empty list.
    said = fingerpost("resolve", "digits", "--registry", url, *access("worker-cats"), status=1)
    assert "service" in said
    assert "read" in said
    said = fingerpost(
        "resolve", "digits", "--registry", url, "--registry-ca-file", secured_cluster.ca_file,
        status=1,
    )  # fmt: skip
    assert "registry" in said
    # A token for another service may not register this one.
    said = fingerpost(
        "worker", "--model", digits.model, "--registry", url, "--log-level", "error",
        *access("worker-cats"), status=1,
    )  # fmt: skip
    assert "digits" in said
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_proxy_that_starts_during_an_outage_knows_the_workers(
    processes: Processes, digits: Digits, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    registry = processes.start("registry", "--port", port)
    until_blocking(lambda: get_json(f"{url}/v1/status/leader"))
    options = ("--snapshots", tmp_path / "snapshots")
    proxy = processes.proxy(url, *options)
    processes.worker(url, digits.model)
    (worker,) = processes.workers(proxy, 1)
    until_blocking(lambda: worker["id"] in "".join(p.read_text() for p in tmp_path.rglob("*.json")))
    registry.signal(signal.SIGKILL)
    registry.wait()
    second = free_port()
    processes.start("proxy", "--port", second, "--registry", url, *options)
    answer = until_blocking(lambda: get_json(f"http://127.0.0.1:{second}/v1/resolve/digits"))
    assert [each["id"] for each in answer["instances"]] == [worker["id"]]
    assert answer["from_disk"]
    assert answer["age_s"] > 0
    (listed,) = get_json(f"http://127.0.0.1:{second}/v1/services")["services"]
    assert (listed["name"], listed["instances"], listed["from_disk"]) == ("digits", 1, True)


def test_a_static_list_needs_no_registry(processes: Processes, digits: Digits) -> None:
    registry = processes.registry()
    processes.worker(registry, digits.model)
    (worker,) = processes.workers(processes.proxy(registry), 1)
    url = f"static://{worker['address']}?model=digits"
    assert fingerpost("resolve", "digits", "--registry", url).strip() == worker["address"]
    line = fingerpost(
        "classify", "--model", "digits", "--registry", url, "--json", digits.images[0]
    )
    assert json.loads(line)["predictions"][0][0] == "0"
    said = fingerpost("worker", "--model", digits.model, "--registry", url, status=1)
    assert "fixed list" in said


def test_workers_outside_the_allowed_networks_are_refused(
    processes: Processes, digits: Digits
) -> None:
    registry = processes.registry()
    processes.worker(registry, digits.model)
    processes.workers(processes.proxy(registry), 1)
    strict = processes.proxy(registry, "--allow-network", "10.0.0.0/8", "--service", "digits")

    def refused() -> bool:
        with urllib.request.urlopen(f"{strict}/metrics", timeout=5) as answer:  # noqa: S310
            return b'rejected_entries_total{reason="outside_networks"} 1.0' in answer.read()

    until_blocking(refused)
    assert get_json(f"{strict}/v1/resolve/digits") is None
    assert "10.0.0.0/8" in fingerpost(
        "proxy", "--allow-network", "everywhere", "--port", 0, status=1
    )


def test_a_worker_that_consul_cannot_reach_reports_by_itself(
    processes: Processes, digits: Digits, consul_url: str
) -> None:
    name = f"ttl-{free_port()}"
    processes.worker(consul_url, digits.model, "--name", name, "--check", "ttl")
    checks = until_blocking(lambda: get_json(f"{consul_url}/v1/health/checks/{name}"))
    assert [each["Status"] for each in checks] == ["passing"]
    assert [each["Type"] for each in checks] == ["ttl"]


def test_a_worker_ends_with_its_parent_while_it_waits_for_a_registry(digits: Digits) -> None:
    command = [*FINGERPOST, "worker", "--model", digits.model, "--registry",
               f"http://127.0.0.1:{free_port()}", "--follow-parent"]  # fmt: skip
    with subprocess.Popen(
        [str(each) for each in command], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            assert "cannot be reached" in process.stderr.readline()
            process.stdin.close()
            assert process.wait(20) == 1
        finally:
            process.kill()
