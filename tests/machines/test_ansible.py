"""Machines made by the Ansible collection: installed, broken, upgraded, one added, all under load.

Three machines on a bridge, which start with nothing but Debian and SSH; Ansible runs beside them.
The tests build on each other, in order.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.machines.conftest import Rows
from tests.machines.load import Load
from tests.machines.machine import ROOT, Machine, Machines
from tests.machines.playbooks import (
    COLLECTION,
    TOOLS,
    Playbooks,
    Release,
    build_earlier,
    make_keys,
    recap,
)
from tests.monitoring.stack import running_stack
from tests.support.certificates import Authority
from tests.support.digits import write_digits
from tests.support.processes import Processes
from tests.support.waiting import until_blocking

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

# The first commit whose `doctor` waits until a machine serves, which the role needs. It is what
# the machines are upgraded from.
PREVIOUS = "e9c344831d16"
FINGERPOST = "/opt/fingerpost/bin/fingerpost"
ALL_AT_ONCE = ("-e", "fingerpost_serial=100%")


# Of a server that is not Fingerpost's.
SERVER_UNIT = """\
[Service]
ExecStart=/usr/bin/python3 /srv/article_server.py 9000
[Install]
WantedBy=multi-user.target
"""


@dataclass
class Site:
    """The machines, and what Ansible knows of them."""

    machines: Machines
    playbooks: Playbooks
    release: Release
    previous: Release
    wheelhouse: Path
    consul: str

    def write_inventory(
        self, release: Release, workers: int = 3, servers: int = 0, **more: Any
    ) -> None:
        """Write it, with servers of others on the last of three machines if `servers` is 1."""
        machines = self.machines.all
        self.playbooks.write_inventory(
            {
                "consul_servers": machines[:3],
                "fingerpost_proxies": machines[:2],
                "fingerpost_workers": machines[:workers],
                "fingerpost_servers": machines[3 - servers : 3],
            },
            **{
                "consul_binary": self.consul,
                "fingerpost_common_wheel": str(release.wheel),
                "fingerpost_common_wheelhouse": str(self.wheelhouse),
                "fingerpost_common_extras": ["python", "security"],
                **more,
            },
        )


@pytest.fixture(scope="module")
def site(
    consul_binary: str,
    release: Release,
    wheelhouse: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ansible")
    layer, digits = folder / "layer", folder / "digits"
    (layer / "srv/fingerpost/models/digits").mkdir(parents=True)
    write_digits(digits).model.rename(layer / "srv/fingerpost/models/digits/1")
    key = make_keys(folder, layer)
    for name in ("old", "home"):
        (folder / name).mkdir()
    with Machines(folder / "machines", 3, layer) as machines:
        yield Site(
            machines=machines,
            playbooks=Playbooks(folder / "home", key),
            release=release,
            previous=build_earlier(folder / "old", PREVIOUS),
            wheelhouse=wheelhouse,
            consul=consul_binary,
        )


def hosts(machine: Machine, service: str = "digits") -> list[str]:
    """The hosts of the workers that the proxy on a machine names."""
    text = machine.shell(
        f"curl -sf -m 5 -H 'Accept: text/plain' 127.0.0.1:12480/v1/resolve/{service} || true"
    )
    return sorted(line.rpartition(":")[0] for line in text.split())


def version(machine: Machine) -> str:
    return machine.run(FINGERPOST, "--version").removeprefix("fingerpost ").strip()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fingerpost_worker_port", "many", "fingerpost_worker_port"),
        ("fingerpost_worker_options", {"max_bathc": 8}, "max_bathc"),
        ("fingerpost_worker_options", {"zone": "rack 7"}, "fingerpost_worker_options.zone"),
        ("fingerpost_worker_modles", "/srv/m", "fingerpost_worker_modles"),
        ("fingerpost_common_version", "0.2.0", "fingerpost_common_version"),
        ("consul_address", "node-1", "consul_address"),
        ("fingerpost_worker_options", {"grpc_port": 12990}, "needs the extra grpc"),
        ("fingerpost_worker_options", {"zmq_port": 12690}, "needs the extra zmq"),
        ("fingerpost_worker_credentials", {"zmq-key": "k"}, "credentials.zmq-key is of use only"),
        ("fingerpost_worker_options", {"front_ends": 65}, "front_ends is 65: give 1 to 64"),
        (
            "fingerpost_worker_options",
            {"front_ends": 2, "shared_memory": True, "uds": "/run/fingerpost-workers/w.sock"},
            "fingerpost_worker_options.uds and fingerpost_worker_options.shared_memory",
        ),
        ("fingerpost_proxy_options", {"xds_port": 12482}, "needs the extra xds"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_changes(
    site: Site, name: str, value: Any, message: str
) -> None:
    site.write_inventory(site.previous, **{name: value})
    output = site.playbooks.run("site.yml", fails=True)
    assert message in output.partition("fatal:")[2]
    assert all(not each.get("changed") for each in recap(output).values())
    assert not (site.machines.all[0].root / "etc/consul.d").exists()


def test_empty_machines_become_a_cluster(site: Site) -> None:
    """With the release before, of which the next tests make the new one."""
    site.write_inventory(site.previous)
    began = time.monotonic()
    output = site.playbooks.run("site.yml", *ALL_AT_ONCE)
    print(f"three machines by Ansible in {time.monotonic() - began:.0f} s")
    assert all(each["failed"] == 0 for each in recap(output).values())
    one, two, three = site.machines.all
    assert hosts(one) == hosts(two) == [one.address, two.address, three.address]
    assert [version(each) for each in site.machines.all] == [site.previous.version] * 3
    unit = "fingerpost-workers.service"
    inside = f"/opt/fingerpost/lib/python*/site-packages/fingerpost/deploy/systemd/{unit}"
    assert one.shell(f"cat {inside}") in one.run("systemctl", "cat", unit)


def test_the_second_run_changes_nothing(site: Site) -> None:
    """As molecule has it: converge, idempotence, verify."""
    began = time.monotonic()
    done = subprocess.run(
        [str(TOOLS / "molecule"), "test"], cwd=COLLECTION / "extensions",
        env=site.playbooks.environment() | {"FINGERPOST_INVENTORY": str(site.playbooks.inventory)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=1500,
    )  # fmt: skip
    print(f"molecule in {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stdout
    for machine in site.machines.all:
        assert machine.property("fingerpost-workers", "NRestarts") == "0"


def test_a_cable_pulled_loses_nothing(site: Site, rows: Rows) -> None:
    one, two, three = site.machines.all
    with Load(one) as load:
        load.until_used(three.address)
        three.pull_cable()
        until_blocking(lambda: hosts(one) == [one.address, two.address], within_s=60)
        three.plug_cable()
        began = time.monotonic()
        until_blocking(lambda: len(hosts(one)) == 3, within_s=120)
        back_s = time.monotonic() - began
    rows.add("the cable of one of three machines pulled", load, f"whole again {back_s:.0f} s after")


def test_a_machine_killed_loses_nothing_and_the_alert_fires_and_clears(
    site: Site, rows: Rows, tmp_path: Path
) -> None:
    """A server of Consul, a proxy and a worker at once, as if the power had failed."""
    one, two, three = site.machines.all
    proxies = [f"{each.address}:12480" for each in (one, two)]
    authority = Authority(tmp_path)
    missing = "FingerpostWorkersMissing"
    with (
        Processes(tmp_path) as processes,
        running_stack(
            processes, tmp_path, proxies=proxies, more=[], left_out=[], ca=authority.file
        ) as stack,
    ):
        expected = "service:fingerpost_instances:expected"
        until_blocking(
            lambda: [each["value"][1] for each in stack.query(expected)] == ["3"], within_s=60
        )
        with Load(one) as load:
            load.until_used(two.address)
            began = time.monotonic()
            two.kill()
            until_blocking(lambda: hosts(one) == [one.address, three.address], within_s=60)
            until_blocking(lambda: missing in stack.firing(), within_s=60)
            fired_s = time.monotonic() - began
            began = time.monotonic()
            two.boot()
            until_blocking(lambda: len(hosts(one)) == 3, within_s=120)
            back_s = time.monotonic() - began
            until_blocking(lambda: (missing, "resolved") in stack.sent["warnings"], within_s=60)
    rows.add(
        "one of three machines killed, with its Consul server, proxy and worker",
        load,
        f"the alert fired after {fired_s:.0f} s<br>used again {back_s:.0f} s after its start<br>"
        f"the alert had cleared after {time.monotonic() - began:.0f} s",
    )


def test_an_upgrade_loses_nothing(site: Site, rows: Rows) -> None:
    one = site.machines.all[0]
    site.write_inventory(site.release)
    began = time.monotonic()
    with Load(one) as load:
        output = site.playbooks.run("upgrade.yml")
    took_s = time.monotonic() - began
    rows.add("all machines upgraded, one after the other", load, f"in {took_s:.0f} s")
    assert all(each["changed"] for each in recap(output).values())
    assert [version(each) for each in site.machines.all] == [site.release.version] * 3
    assert len(hosts(one)) == 3


def test_settings_that_do_not_work_end_at_the_first_machine(site: Site) -> None:
    one = site.machines.all[0]
    site.write_inventory(
        site.release,
        fingerpost_worker_options={"max_batch": 0},
        fingerpost_worker_serving_timeout=5,
    )
    with Load(one) as load:
        output = site.playbooks.run("site.yml", "--limit", "fpm2,fpm3", fails=True)
        until_blocking(lambda: len(hosts(one)) == 3, "all serve as before", within_s=60)
    assert load.failed == 0, load.errors
    assert "max_batch is 0" in output.partition("The end of its log")[2], output
    site.write_inventory(site.release)
    site.playbooks.run("site.yml", "--limit", "fpm2,fpm3")
    until_blocking(lambda: len(hosts(one)) == 3, within_s=60)


def test_one_command_adds_a_machine(site: Site, rows: Rows) -> None:
    one = site.machines.all[0]
    with Load(one) as load:
        began = time.monotonic()
        four = site.machines.add()
        site.write_inventory(site.release, workers=4)
        site.playbooks.run("add-node.yml", "--limit", four.name)
        load.until_used(four.address)
        took_s = time.monotonic() - began
    rows.add("a fourth machine added", load, f"used {took_s:.0f} s after its boot began (60)")
    # Of a machine that has more to do than it has cores, each thing takes so many times longer.
    busy = max(1.0, os.getloadavg()[1] / (os.cpu_count() or 1))
    assert took_s < 60 * busy


def test_a_machine_is_taken_out(site: Site) -> None:
    one, *_, four = site.machines.all
    with Load(one) as load:
        site.playbooks.run("remove-node.yml", "--limit", four.name)
    assert load.failed == 0, load.errors
    assert four.address not in hosts(one)
    assert not (four.root / "etc/fingerpost/worker.env").exists()
    members = one.run("/usr/local/bin/consul", "members")
    assert "left" in next(line for line in members.splitlines() if four.name in line)


def test_what_doctor_finds_keeps_a_machine_out(site: Site) -> None:
    """Its port cannot be had: nothing is started, and the last lines say why."""
    four = site.machines.all[-1]
    four.shell("systemd-run --unit taken python3 -m http.server 12490")
    four.until("curl -sf 127.0.0.1:12490 > /dev/null")
    output = site.playbooks.run("add-node.yml", "--limit", four.name, fails=True)
    assert "Address already in use" in output.partition("Say what to do")[2], output
    assert four.property("fingerpost-workers", "ActiveState") == "inactive"
    assert four.property("fingerpost-workers", "UnitFileState") == "disabled"


def test_a_server_of_others_is_registered_while_its_unit_runs(site: Site) -> None:
    one, _, three = site.machines.all[:3]
    three.copy(ROOT / "tests/support/article_server.py", "/srv")
    (three.root / "etc/systemd/system/article.service").write_text(SERVER_UNIT)
    three.shell("systemctl daemon-reload && systemctl enable --now article")
    server = {
        "service": "flowers",
        "unit": "article.service",
        "options": {"port": 9000, "front": 9001, "advertise": three.address, "check": "http:/ping"},
    }

    def run(*servers: dict[str, Any], fails: bool = False) -> str:
        site.write_inventory(site.release, servers=1, fingerpost_register_servers=[*servers])
        return site.playbooks.run("site.yml", "--limit", three.name, fails=fails)

    assert "service Flowers must be of a to z" in run(server | {"service": "Flowers"}, fails=True)
    assert not list(three.root.glob("etc/fingerpost/register-*.env"))
    run(server)
    until_blocking(lambda: hosts(one, "flowers") == [three.address], within_s=30)
    assert recap(run(server))[three.name]["changed"] == 0
    unit = "fingerpost-register@flowers"
    three.run("systemctl", "stop", "article")  # which drains first
    assert three.property(unit, "Result") == "success"
    assert "drain" in three.journal(unit)
    until_blocking(lambda: hosts(one, "flowers") == [], within_s=30)
    three.run("systemctl", "start", "article")
    until_blocking(lambda: hosts(one, "flowers") == [three.address], within_s=60)
    run()  # it is no longer listed
    until_blocking(lambda: hosts(one, "flowers") == [], within_s=30)
    assert three.property(unit, "ActiveState") == "inactive"
    assert not list(three.root.glob("etc/systemd/system/fingerpost-register@*.d"))
    assert hosts(one) == [each.address for each in site.machines.all[:3]]


def test_gpus_are_set_up_in_check_mode(site: Site) -> None:
    """No machine here has a GPU; what would be done is shown, and wrong values are refused."""
    (three,) = site.machines.all[2:3]
    groups = {
        "consul_servers": site.machines.all[:3],
        "fingerpost_workers": [three],
        "nvidia_gpus": [three],
    }
    common: dict[str, Any] = {
        "fingerpost_common_wheel": str(site.release.wheel),
        "consul_binary": site.consul,
              "nvidia_driver_package": "", "nvidia_mps": True}  # fmt: skip
    site.playbooks.write_inventory(groups, nvidia_mig={"0": ["3g.40gb"]}, **common)
    output = site.playbooks.run("site.yml", "--check", "--limit", three.name)
    assert "Read the partitions of GPU 0" in output
    assert "Make the partitions" in output
    assert "Write the unit of MPS" in output
    assert not (three.root / "etc/systemd/system/nvidia-mps.service").exists()
    site.playbooks.write_inventory(groups, nvidia_mig={"0": ["half"]}, **common)
    assert "nvidia_mig must have profiles" in site.playbooks.run("site.yml", fails=True)
