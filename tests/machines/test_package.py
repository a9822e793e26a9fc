"""The Debian package on a machine: installed, updated under load, removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.machines.load import Load
from tests.machines.machine import ROOT, Machine, Machines

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

UNITS = ROOT / "deploy/systemd"
JOIN = "/opt/fingerpost/bin/fingerpost join consul://127.0.0.1:8500 --models /srv/fingerpost/models"
WORKERS = "fingerpost-workers"


@pytest.fixture(scope="module")
def packaged(cluster: Machines, onnx_package: Path) -> Machine:
    """The third machine, with the package and nothing else of Fingerpost."""
    machine = cluster.all[2]
    machine.run("rm", "-rf", "/opt/fingerpost")
    machine.copy(onnx_package, "/root")
    return machine


def install(machine: Machine, package: Path) -> None:
    machine.run("dpkg", "-i", f"/root/{package.name}", timeout_s=300)


def test_it_starts_nothing(packaged: Machine, onnx_package: Path) -> None:
    install(packaged, onnx_package)
    assert packaged.run("fingerpost", "--version").startswith("fingerpost 0.")
    assert packaged.run("stat", "-c", "%a", "/etc/fingerpost/credentials/proxy").strip() == "700"
    for unit in ("fingerpost-proxy", WORKERS):
        assert packaged.property(unit, "ActiveState") == "inactive"
    packaged.run("systemctl", "start", "fingerpost-proxy.socket")
    packaged.until("curl -sf 127.0.0.1:12480/health/ready")
    assert packaged.property("fingerpost-proxy", "ActiveState") == "active"


def test_an_update_loses_nothing(cluster: Machines, packaged: Machine, onnx_package: Path) -> None:
    """Its worker, of two front ends, and that of another machine answer one client."""
    other = cluster.all[0]
    for name in ("fingerpost-proxy.service", "fingerpost-proxy.socket"):
        other.copy(UNITS / name, "/etc/systemd/system")
    other.copy(UNITS / "fingerpost.conf", "/etc/tmpfiles.d")
    other.shell("systemd-tmpfiles --create fingerpost.conf; systemctl daemon-reload")
    other.run("systemctl", "start", "fingerpost-proxy.socket")
    other.until("curl -sf -m 5 127.0.0.1:12480/health/ready")
    other.shell(JOIN)
    settings = packaged.root / "etc/fingerpost/worker.env"
    settings.write_text('FINGERPOST_WORKER_OPTIONS="--port 12490 --front-ends 2"\n')
    packaged.run("systemctl", "start", WORKERS)
    before = packaged.property(WORKERS, "MainPID")
    with Load(other) as load:
        load.until_used(other.address)
        load.until_used(packaged.address)
        install(packaged, onnx_package)
        assert packaged.property(WORKERS, "ActiveState") == "active"
    assert packaged.property(WORKERS, "MainPID") not in ("0", before)
    assert load.failed == 0, load.errors
    assert {each.rpartition(":")[0] for each in load.used} == {other.address, packaged.address}
    packaged.until("curl -sf 127.0.0.1:12480/health/ready")
    log = packaged.journal(WORKERS)
    assert "Traceback" not in log, log


def test_it_is_removed(packaged: Machine) -> None:
    packaged.run("dpkg", "-r", "fingerpost-onnx")
    for unit in ("fingerpost-proxy", WORKERS):
        assert packaged.property(unit, "LoadState") == "not-found"
    assert packaged.run("ls", "/opt/fingerpost", check=False).count("cannot access") == 1
