"""Real machines: units under systemd, `fingerpost join`, a machine that is killed and one added.

Three machines on a bridge, each with a Consul server. The tests build on each other, in order.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from tests.machines.load import Load
from tests.machines.machine import ROOT, Machine, Machines
from tests.machines.playbooks import COLLECTION, build_earlier
from tests.support.waiting import until_blocking

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

# Release 0.1.0, whose workers proxies and clients of this one must find.
OLDEST = "0e9c484a28ac"
PROXY = "127.0.0.1:12480/v1/resolve/digits"
FINGERPOST = "/opt/fingerpost/bin/fingerpost"
UNITS = ROOT / "deploy/systemd"
WORKERS = "fingerpost-workers"
JOIN = (FINGERPOST, "join", "consul://127.0.0.1:8500", "--models", "/srv/fingerpost/models")


def install_units(machine: Machine, of: str) -> None:
    """As deploy/systemd/README.md says."""
    for path in UNITS.iterdir():
        if path.suffix in (".service", ".socket") and of in path.name:
            machine.copy(path, "/etc/systemd/system")
    machine.copy(UNITS / "fingerpost.conf", "/etc/tmpfiles.d")
    machine.shell("systemd-tmpfiles --create fingerpost.conf && systemctl daemon-reload")


def install_proxy(machine: Machine) -> None:
    install_units(machine, "proxy")
    machine.run(
        "systemctl", "enable", "--now", "fingerpost-proxy.socket", "fingerpost-proxy.service"
    )


def workers(machine: Machine, service: str = "digits") -> list[str]:
    """The hosts of the workers that the proxy on a machine names."""
    text = machine.shell(f"curl -sf 127.0.0.1:12480/v1/resolve/{service} || true")
    return sorted(each["host"] for each in json.loads(text)["instances"]) if text else []


def test_a_proxy_is_started_by_its_socket(cluster: Machines) -> None:
    for machine in cluster.all[:2]:
        install_proxy(machine)
        assert machine.property("fingerpost-proxy", "ActiveState") == "active"
    one = cluster.all[0]
    one.until("curl -sf 127.0.0.1:12480/health/ready")
    first = one.property("fingerpost-proxy", "MainPID")
    one.run("systemctl", "stop", "fingerpost-proxy.service")
    assert one.shell("curl -sf 127.0.0.1:12480/health/live") == '{"status":"live"}'
    assert one.property("fingerpost-proxy", "MainPID") not in ("0", first)


def test_a_proxy_sees_processes_alone_in_proc(cluster: Machines) -> None:
    """Those of its own user; a worker sees what frameworks read there."""
    one = cluster.all[0]
    pid = one.property("fingerpost-proxy", "MainPID")
    inside = ("nsenter", "-t", pid, "-m")
    listed = one.run(*inside, "ls", "/proc").split()
    assert pid in listed
    assert not {"cpuinfo", "sys", "net"} & {*listed}


def test_a_reload_hands_the_socket_over(cluster: Machines) -> None:
    one = cluster.all[0]
    before = one.property("fingerpost-proxy", "MainPID")
    one.run("systemctl", "reload", "fingerpost-proxy")
    until_blocking(lambda: one.property("fingerpost-proxy", "MainPID") != before)
    assert one.property("fingerpost-proxy", "ActiveState") == "active"
    assert one.property("fingerpost-proxy", "NRestarts") == "0"
    assert "WARNING" not in one.shell("curl -sf 127.0.0.1:12480/health/ready")


def test_join_shows_what_it_would_do(cluster: Machines) -> None:
    one = cluster.all[0]
    text = one.run(*JOIN, "--dry-run")
    assert "file /etc/systemd/system/fingerpost-workers.service" in text
    assert "nothing was changed" in text
    assert not (one.root / "etc/systemd/system/fingerpost-workers.service").exists()


@pytest.mark.parametrize("number", [1, 2])
def test_join_adds_a_machine(cluster: Machines, number: int) -> None:
    machine, proxy = cluster.all[number - 1], f"http://{cluster.all[0].address}:12480"
    began = time.monotonic()
    text = machine.run(*JOIN, "--proxy", proxy)
    print(f"machine {number} joined in {time.monotonic() - began:.1f} s")
    assert re.search(rf"{machine.address}:12490 digits answered an image in \d+ ms", text), text
    assert "to undo it: fingerpost join --undo" in text
    assert "0 errors" in text
    assert machine.property(WORKERS, "ActiveState") == "active"
    status = machine.property(WORKERS, "StatusText")
    assert status.startswith(f"serving digits@1 at {machine.address}:12490")
    until_blocking(lambda: machine.address in workers(cluster.all[0]))
    again = machine.run(*JOIN, "--proxy", proxy)
    assert "wrote" not in again, "the second run changes nothing"
    assert machine.property(WORKERS, "NRestarts") == "0"


def test_the_sandbox(cluster: Machines) -> None:
    one = cluster.all[0]
    pid = one.property(WORKERS, "MainPID")
    inside = ("nsenter", "-t", pid, "-m")
    assert "Read-only file system" in one.run(*inside, "touch", "/etc/x", check=False)
    assert one.run(*inside, "ls", "-A", "/root") == ""
    status = one.run("cat", f"/proc/{pid}/status")
    assert re.search(r"CapEff:\s+0+\n", status)
    assert re.search(r"NoNewPrivs:\s+1\n", status)
    assert re.search(r"Uid:\s+6\d{4}\s", status), "a user that exists while it runs"


def test_a_token_reaches_the_worker_and_nobody_else(cluster: Machines) -> None:
    one = cluster.all[0]
    one.shell("echo anonymous-is-enough-here > /root/token")
    text = one.run(*JOIN, "--registry-token-file", "/root/token", check=False)
    assert "wrote /etc/fingerpost/credentials/worker/registry-token" in text
    file = one.root / "etc/fingerpost/credentials/worker/registry-token"
    assert file.stat().st_mode & 0o777 == 0o600
    pid = one.property(WORKERS, "MainPID")
    seen = one.run(
        *("nsenter", "-t", pid, "-m", "stat", "-c", "%a"),
        "/run/credentials/fingerpost-workers.service/fingerpost_registry-token",
    )
    assert seen.strip() == "400"
    assert "anonymous-is-enough-here" not in one.run("ps", "aux")
    one.run(*JOIN)  # without it again
    one.run("rm", f"/{file.relative_to(one.root)}")


def test_the_watchdog_ends_what_hangs(cluster: Machines) -> None:
    one = cluster.all[0]
    drop_in = one.root / "etc/systemd/system/fingerpost-workers.service.d"
    drop_in.mkdir()
    (drop_in / "quick.conf").write_text("[Service]\nWatchdogSec=2s\nRestartSec=0\n")
    one.shell(f"systemctl daemon-reload && systemctl restart {WORKERS}")
    pid = one.property(WORKERS, "MainPID")
    one.run("kill", "-STOP", pid)
    until_blocking(lambda: one.property(WORKERS, "NRestarts") == "1", within_s=60)
    until_blocking(lambda: one.property(WORKERS, "ActiveState") == "active", within_s=60)
    assert "Watchdog timeout" in one.journal(WORKERS)
    (drop_in / "quick.conf").unlink()
    one.shell(f"systemctl daemon-reload && systemctl restart {WORKERS}")
    until_blocking(lambda: workers(one) == ["10.79.0.1", "10.79.0.2"], within_s=60)


def test_a_third_machine_is_used_and_a_killed_one_loses_nothing(cluster: Machines) -> None:
    """One added under load, one drained, one killed: no image fails."""
    one, two, three = cluster.all
    with Load(one) as load:
        began = time.monotonic()
        three.run(*JOIN, "--proxy", f"http://{one.address}:12480")
        until_blocking(lambda: three.address in workers(one))
        joined_s = time.monotonic() - began
        two.run("systemctl", "restart", WORKERS)  # it drains, and comes back
        until_blocking(lambda: len(workers(one)) == 3, within_s=60)
        three.run("kill", "-KILL", three.property(WORKERS, "MainPID"))
        until_blocking(lambda: three.property(WORKERS, "NRestarts") == "1", within_s=60)
        until_blocking(lambda: len(workers(one)) == 3, within_s=60)
    print(f"joined and used in {joined_s:.1f} s; {load}")
    assert load.failed == 0, load.errors
    assert load.done > 100
    assert joined_s < 60


def test_a_machine_that_is_cut_off_loses_nothing(cluster: Machines) -> None:
    one, two, three = cluster.all
    with Load(one) as load:
        three.pull_cable()
        until_blocking(lambda: workers(one) == [one.address, two.address], within_s=60)
        three.plug_cable()
        until_blocking(lambda: len(workers(one)) == 3, within_s=90)
    print(load)
    assert load.failed == 0, load.errors


def test_what_is_wrong_is_one_line(cluster: Machines) -> None:
    three = cluster.all[2]
    text = three.run(*JOIN[:3], "--models", "/srv/nothing", check=False)
    assert "/srv/nothing cannot be read: No such file or directory" in text
    assert "nothing was changed" in text
    found = json.loads(
        three.run(FINGERPOST, "doctor", "--json", "--registry", "consul://127.0.0.1:8500")
    )
    assert not [each for each in found if each["level"] == "error"]
    taken = three.run(
        *(FINGERPOST, "doctor", "--registry", "consul://127.0.0.1:8500", "--port", 12490),
        *("--proxy", f"http://{cluster.all[0].address}:12480"),
        check=False,
    )
    assert "Address already in use" in taken
    one = cluster.all[0].address
    three.shell(f"ip route add prohibit {one} && sleep 0.1")
    cut = three.run(
        *(FINGERPOST, "doctor", "--registry", "consul://127.0.0.1:8500"),
        *("--proxy", f"http://{one}:12480"),
        check=False,
    )
    three.shell(f"ip route del prohibit {one}")
    assert re.search(r"error +proxy 10\.79\.0\.1:12480", cut), cut


def test_undo_takes_it_back(cluster: Machines) -> None:
    one, _, three = cluster.all
    with Load(one) as load:
        text = three.run(FINGERPOST, "join", "--undo")
        until_blocking(lambda: three.address not in workers(one))
    assert "removed /etc/systemd/system/fingerpost-workers.service" in text
    assert load.failed == 0, load.errors
    assert three.property(WORKERS, "LoadState") == "not-found"
    assert (three.root / "srv/fingerpost/models/digits/1").is_dir()
    assert "there is nothing" in three.run(FINGERPOST, "join", "--undo")


def test_a_worker_of_the_first_release_serves_beside_new_ones(
    cluster: Machines, wheelhouse: Path, tmp_path: Path
) -> None:
    """Proxies and clients read what it registers, and it drains for them."""
    one, _, three = cluster.all
    oldest = build_earlier(tmp_path, OLDEST)
    script = COLLECTION / "roles/fingerpost_common/files/make-environment"
    wheels = three.root / "opt/oldest/wheels"
    wheels.mkdir(parents=True)
    for file in (oldest.wheel, wheelhouse, script):
        shutil.copy(file, wheels)
    address = f"{three.address}:12600"
    what = f"fingerpost[python] @ file:///opt/oldest/wheels/{oldest.wheel.name}"
    made = (f"/opt/oldest/wheels/{script.name}", "python3", "/opt/oldest", what)
    three.run(*made, wheelhouse.name)
    serve = ("worker", "--models", "/srv/fingerpost/models", "--host", "0.0.0.0", "--port", 12600)  # noqa: S104
    registry = ("--registry", "consul://127.0.0.1:8500")
    with Load(one) as load:
        three.run(
            *("systemd-run", "--unit=oldest", "/opt/oldest/bin/fingerpost"), *serve, *registry
        )
        load.until_used(address)
        three.run("systemctl", "stop", "oldest")
        one.until(f"! curl -sf -H 'Accept: text/plain' {PROXY} | grep {address}")
    print(f"{oldest.version}: {load.used}")
    assert load.failed == 0, load.errors


def test_a_unit_keeps_the_entry_of_a_server_that_is_not_fingerposts(cluster: Machines) -> None:
    """It has a unit of its own; the other one follows its health, and ends with it."""
    one, _, three = cluster.all
    install_units(three, "register")
    three.copy(ROOT / "tests/support/article_server.py", "/srv")
    unit = "fingerpost-register@flowers"
    (three.root / "etc/fingerpost/register-flowers.env").write_text(
        'FINGERPOST_REGISTER_OPTIONS="--port 9000 --front 9001 --advertise 10.79.0.3"\n'
    )
    serve = ("systemd-run", "--unit=article", "python3", "/srv/article_server.py", "9000")
    three.run("systemctl", "start", "--no-block", unit)
    three.until(f"systemctl show {unit} -p StatusText | grep 'waiting for flowers to answer'")
    three.run(*serve)
    three.until(f"systemctl is-active {unit}")
    assert three.property(unit, "StatusText") == "flowers at 10.79.0.3:9001 is registered"
    until_blocking(lambda: workers(one, "flowers") == [three.address], within_s=30)
    three.run("systemctl", "kill", "--signal=KILL", "article")
    until_blocking(lambda: workers(one, "flowers") == [], within_s=30)
    three.until(f"systemctl show {unit} -p StatusText | grep 'not healthy'")
    three.run("systemctl", "reset-failed", "article")
    three.run(*serve)
    until_blocking(lambda: workers(one, "flowers") == [three.address], within_s=30)
    three.run("systemctl", "stop", unit)
    until_blocking(lambda: workers(one, "flowers") == [], within_s=30)
    assert three.property(unit, "Result") == "success"
