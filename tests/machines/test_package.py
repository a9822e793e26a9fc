"""The Debian package on a machine: installed, used, removed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.machines.machine import ROOT, Machines, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def test_the_package(cluster: Machines, tmp_path: Path) -> None:
    machine = cluster.all[2]
    build = ROOT / "deploy/systemd/build-deb"
    run(build, sys.executable, tmp_path, "core", timeout_s=800)
    (package,) = tmp_path.glob("fingerpost-core_*.deb")
    machine.run("rm", "-rf", "/opt/fingerpost")  # what is there comes from the package
    machine.copy(package, "/root")
    machine.run("dpkg", "-i", f"/root/{package.name}", timeout_s=300)
    assert machine.run("fingerpost", "--version").startswith("fingerpost 0.")
    assert machine.run("stat", "-c", "%a", "/etc/fingerpost/credentials/proxy").strip() == "700"
    assert machine.property("fingerpost-proxy", "ActiveState") == "inactive", "nothing is started"
    machine.run("systemctl", "start", "fingerpost-proxy.socket")
    machine.until("curl -sf 127.0.0.1:12480/health/ready")
    assert machine.property("fingerpost-proxy", "ActiveState") == "active"
    machine.run("dpkg", "-i", f"/root/{package.name}", timeout_s=300)
    machine.until("curl -sf 127.0.0.1:12480/health/ready")
    machine.run("dpkg", "-r", "fingerpost-core")
    assert machine.property("fingerpost-proxy", "LoadState") == "not-found"
    assert machine.run("ls", "/opt/fingerpost", check=False).count("cannot access") == 1
