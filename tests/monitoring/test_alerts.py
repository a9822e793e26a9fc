"""Each alert fires by a real fault, reaches Alertmanager, and ends when the fault is mended.

Then a real Prometheus has data for every expression of the rules and dashboards. The rules are
those of deploy/monitoring, with seconds in place of minutes; `alerts.test.yml` tries them as they
are. The faults of a phase happen at once, because starting the cluster takes longer than all of
them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import queue
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
import zmq

from fingerpost.proxy.xds.messages import message_class
from tests.monitoring.cluster import Cluster, Load, gray, post, running_cluster
from tests.monitoring.stack import MONITORING, Stack, program, running_stack
from tests.support.processes import Processes
from tests.support.waiting import until_blocking

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

# By no fault from outside: it would be one of Fingerpost's own. `alerts.test.yml` has its case.
_NOT_HERE = {"FingerpostUnexpectedErrors"}

_WHITE, _BLACK, _GRAY = gray(255), gray(0), gray(128)


@dataclass
class World:
    cluster: Cluster
    stack: Stack


def _job(name: str, targets: list[str], job: str, **more: Any) -> dict[str, Any]:
    return {
        "job_name": name,
        "static_configs": [{"targets": targets}],
        "relabel_configs": [{"target_label": "job", "replacement": job}],
        **more,
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("monitoring")
    (folder / "logs").mkdir()
    with (
        Processes(folder / "logs") as processes,
        running_cluster(processes, folder) as cluster,
        running_stack(
            processes,
            folder,
            proxies=[cluster.plain, cluster.lost],
            more=[
                _job("secure", [cluster.secure], "fingerpost-proxies", scheme="https"),
                _job("listed", [cluster.first, cluster.leased], "fingerpost-workers"),
            ],
            left_out=[cluster.first, cluster.leased],
            ca=cluster.authority.file,
        ) as stack,
    ):
        yield World(cluster, stack)


# What breaks something, and returns what mends it.
Fault = Callable[[Cluster], Callable[[], object]]
PHASES: dict[str, list[tuple[Fault, set[str]]]] = {
    "registry stopped": [],
    "processes": [],
    "proxies": [],
}


def fault(phase: str, *alerts: str) -> Callable[[Fault], Fault]:
    def add(function: Fault) -> Fault:
        PHASES[phase].append((function, {f"Fingerpost{alert}" for alert in alerts}))
        return function

    return add


@fault("registry stopped", "RegistryUnreachable")
def the_registry_hangs(cluster: Cluster) -> Callable[[], object]:
    registry = cluster.running["registry"]
    registry.signal(signal.SIGSTOP)
    return lambda: registry.signal(signal.SIGCONT)


@fault("registry stopped", "Overloaded")
def more_images_than_the_model_takes(cluster: Cluster) -> Callable[[], object]:
    url = f"http://{cluster.second}/v1/classify/digits"
    load = Load(lambda: post(url, _WHITE, Fingerpost_Class="batch"), threads=12, pause_s=0.1)
    return load.end


@fault("registry stopped", "RequestsFail")
def images_that_break_the_model(cluster: Cluster) -> Callable[[], object]:
    return Load(lambda: post(f"http://{cluster.first}/v1/classify/digits", _BLACK)).end


@fault("registry stopped", "ConnectionsRefused")
def one_client_opens_too_many_connections(cluster: Cluster) -> Callable[[], object]:
    address = ("127.0.0.1", cluster.leased_port)

    def open_twenty() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    stack.enter_context(socket.create_connection(address, 2))

    return Load(open_twenty, pause_s=1.5).end


@fault("registry stopped", "LeasesRefused")
def images_without_a_lease(cluster: Cluster) -> Callable[[], object]:
    url = f"http://{cluster.leased}/v1/classify/leased"
    return Load(lambda: post(url, _GRAY), pause_s=0.2).end


@fault("registry stopped", "CallersRefused")
def a_key_that_is_not_known(cluster: Cluster) -> Callable[[], object]:
    url, wrong = f"https://{cluster.secure}/v1/services", "Bearer fpk_" + 43 * "x"
    trust = cluster.trust
    return Load(lambda: post(url, None, tls=trust, Authorization=wrong), pause_s=0.2).end


@fault("registry stopped", "HandshakesFail")
def plain_http_to_a_port_of_tls(cluster: Cluster) -> Callable[[], object]:
    return Load(lambda: post(f"http://{cluster.secure}/", None), pause_s=0.2).end


@fault("registry stopped", "CertificateExpires")
def a_certificate_that_nobody_renewed(cluster: Cluster) -> Callable[[], object]:
    # Begun a minute ago: less than a fifth is left when it has 15 s. An expired one is worse yet.
    cluster.renew(14)
    return lambda: cluster.renew(3600)


@fault("registry stopped", "XdsRejected")
def a_client_of_grpc_refuses_what_xds_tells(cluster: Cluster) -> Callable[[], object]:
    request = message_class("envoy.service.discovery.v3.DiscoveryRequest")
    response = message_class("envoy.service.discovery.v3.DiscoveryResponse")
    asked = request(
        type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster", resource_names=["digits"]
    )
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    said.put(asked)
    channel = grpc.insecure_channel(f"127.0.0.1:{cluster.xds_port}")
    calls = channel.stream_stream(
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )(iter(said.get, None))
    asked.response_nonce = next(calls).nonce
    asked.error_detail.message = "no such policy"
    said.put(asked)

    def mend() -> None:
        said.put(None)
        calls.cancel()  # named here, too, as a call that nobody names is cancelled
        channel.close()

    return mend


@fault("registry stopped", "IssuersFailing")
def an_issuer_of_tokens_that_is_away(cluster: Cluster) -> Callable[[], object]:
    before = cluster.callers.read_text()
    issuer = f"http://127.0.0.1:{cluster.no_registry_port}"
    cluster.callers.write_text(
        f'{before}\n[[issuers]]\nissuer = "{issuer}"\naudience = "fingerpost"\n'
        f'jwks_url = "{issuer}/jwks"\n'
    )
    return lambda: cluster.callers.write_text(before)


@fault("registry stopped", "LogLinesLost")
def a_full_disk_under_the_audit_log(cluster: Cluster) -> Callable[[], object]:
    cluster.audit_log.unlink(missing_ok=True)
    cluster.audit_log.symlink_to("/dev/full")
    return cluster.audit_log.unlink


@fault("registry stopped", "ModelLoadFailed")
def a_broken_version(cluster: Cluster) -> Callable[[], object]:
    folder = cluster.models / "digits" / "2"
    folder.mkdir()
    (folder / "model.toml").write_text('framework = "python"\nclass = "missing:Model"\n')

    def remove() -> None:
        (folder / "model.toml").unlink()
        folder.rmdir()

    return remove


@fault("registry stopped", "ProxyNotReady")
def a_proxy_that_never_reached_a_registry(cluster: Cluster) -> Callable[[], object]:
    port = cluster.no_registry_port  # it was started so
    return lambda: cluster.processes.start("registry", "--port", port)


@fault("processes", "WorkerFailing", "WorkersMissing", "WorkerNotScraped")
def a_worker_is_killed(cluster: Cluster) -> Callable[[], object]:
    cluster.end("first")
    return cluster.start_first


@fault("processes", "WorkerNotReady", "NoWorkers")
def the_only_worker_of_a_model_drains_without_an_end(cluster: Cluster) -> Callable[[], object]:
    cluster.running["leased"].signal(signal.SIGTERM)  # it has `--lease 300`

    def mend() -> None:
        cluster.end("leased", signal.SIGTERM)  # a second one ends it at once
        cluster.start_leased()

    return mend


@fault("processes", "WorkersRetained")
def the_registry_loses_a_worker_that_cannot_reach_it(cluster: Cluster) -> Callable[[], object]:
    id_ = cluster.id_of("lonely")
    cluster.wire.cut()
    cluster.deregister(id_)
    return cluster.wire.mend


@fault("processes", "EntriesRejected")
def somebody_registers_the_address_of_the_metadata_service(
    cluster: Cluster,
) -> Callable[[], object]:
    cluster.register_bad_entry()
    return lambda: cluster.deregister("bad")


@fault("processes", "PolicyBroken")
def a_mistake_in_the_file_of_callers(cluster: Cluster) -> Callable[[], object]:
    before = cluster.callers.read_text()
    cluster.callers.write_text("[[callers")
    return lambda: cluster.callers.write_text(before)


@fault("proxies", "ProxyDown", "NoProxy")
def all_proxies_are_killed(cluster: Cluster) -> Callable[[], object]:
    for name in ("plain", "secure", "lost"):
        cluster.end(name)
    return cluster.start_proxies


def _alerts() -> set[str]:
    file = yaml.safe_load((MONITORING / "rules" / "alerts.yml").read_text("utf-8"))
    return {rule["alert"] for group in file["groups"] for rule in group["rules"]}


def test_each_alert_has_a_fault() -> None:
    by_fault = [alerts for faults in PHASES.values() for _, alerts in faults]
    assert set().union(*by_fault) == _alerts() - _NOT_HERE


def test_the_rules_hold_in_promtool() -> None:
    file = Path(__file__).parents[1] / "deploy" / "monitoring" / "alerts.test.yml"
    run = subprocess.run(
        [program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_configurations_are_valid(tmp_path: Path) -> None:
    for name, arguments in {
        "promtool": ("check", "config", MONITORING / "prometheus.yml"),
        "amtool": ("check-config", MONITORING / "alertmanager.yml"),
    }.items():
        run = subprocess.run(
            [program(name), *arguments], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr


def test_nothing_fires_in_a_healthy_cluster(world: World) -> None:
    cluster, stack = world.cluster, world.stack
    ours = (cluster.plain, cluster.secure, cluster.lost, cluster.first, cluster.second)
    until_blocking(lambda: {*ours, cluster.leased} <= set(stack.targets()), within_s=60)
    until_blocking(lambda: set(stack.targets().values()) == {"up"}, within_s=60)
    until_blocking(lambda: stack.query("model:fingerpost_worker_images:rate5m"))
    # A proxy that never reached its registry is there from the start.
    until_blocking(lambda: set(stack.firing()) == {"FingerpostProxyNotReady"}, within_s=60)


def ready_by_grpc(port: int) -> None:
    """Ask a worker by gRPC whether it is ready."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=10)


def nonsense_by_zmq(port: int) -> None:
    """Send a worker what is not a message; it disconnects who does."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 1000  # ms
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send_multipart([b"", b"nonsense"])


@pytest.mark.parametrize("phase", PHASES)
def test_faults_fire_and_end(world: World, phase: str) -> None:
    cluster, stack = world.cluster, world.stack
    begun = time.monotonic()
    url = f"http://{cluster.second}/v1/classify/digits"
    good = Load(lambda: post(url, _GRAY), pause_s=0.1)
    by_grpc = Load(lambda: ready_by_grpc(cluster.grpc_port), pause_s=0.5)
    by_zmq = Load(lambda: nonsense_by_zmq(cluster.zmq_port), pause_s=0.5)
    wanted = set().union(*(alerts for _, alerts in PHASES[phase]))
    seen: dict[str, float] = {}
    mend = [function(cluster) for function, _ in PHASES[phase]]

    def all_seen() -> bool:
        for alert in stack.firing():
            seen.setdefault(alert, time.monotonic() - begun)
        return wanted <= set(seen)

    try:
        until_blocking(all_seen, within_s=150, every_s=0.3)
    except AssertionError:
        pytest.fail(f"{phase}: {wanted - set(seen)} did not fire; {sorted(seen)} did")
    finally:
        for each in mend:
            each()
        good.end()
        by_grpc.end()
        by_zmq.end()
    mended = time.monotonic()
    try:
        until_blocking(lambda: not stack.firing(), within_s=90, every_s=0.3)
    except AssertionError:
        pytest.fail(f"{phase}: {stack.firing()} did not end")
    after = time.monotonic() - mended
    for alert in sorted(wanted, key=seen.__getitem__):
        print(f"  {alert}: {seen[alert]:.1f} s")
    print(f"{phase}: mended after {mended - begun:.1f} s, all clear {after:.1f} s later")


def test_alertmanager_sent_to_whom_it_should(world: World) -> None:
    sent = world.stack.sent
    for receiver, alert in (
        ("pages", "NoWorkers"),
        ("pages", "NoProxy"),
        ("warnings", "Overloaded"),
    ):
        for status in ("firing", "resolved"):
            until_blocking(lambda: (f"Fingerpost{alert}", status) in sent[receiver])  # noqa: B023


def _expressions() -> Iterator[tuple[str, str]]:
    for file in sorted((MONITORING / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]
    for file in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"]


def test_prometheus_has_data_for_every_expression(world: World) -> None:
    """Of the time of the faults: also what counts refusals has something to count."""
    empty = []
    for where, expression in _expressions():
        if where in _NOT_HERE:
            continue
        for old, new in {
            "$__rate_interval": "10s", "$model": ".*", "$instance": ".*", "[5m]": "[10s]",
            "[10m]": "[10s]", "[15m]": "[10s]", "[6h]": "[10m]", ") > 60": ") > 24",
        }.items():  # fmt: skip
            expression = expression.replace(old, new)
        values = itertools.chain.from_iterable(
            series["values"] for series in world.stack.query(expression, since=world.stack.begun)
        )
        if all(math.isnan(float(value)) for _, value in values):
            empty.append((where, expression))
    assert not empty
