"""docs/first-cluster/machines.md, step by step, on three machines that have nothing yet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machines.machine import CACHE, ROOT, Machines, run
from tests.support.walks import Shell, walk

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

PAGE = ROOT / "docs/first-cluster/machines.md"
# As Debian's packages make them.
_USER = "useradd --system --no-create-home prometheus && chown -R prometheus: /var/lib/prometheus"


@pytest.fixture
def three(consul_binary: str, onnx_package: Path, tmp_path: Path) -> Iterator[Machines]:
    """What the page asks for: names, SSH, Consul, Prometheus; and the package in root's home."""
    layer = tmp_path / "layer"
    (layer / "usr/local/bin").mkdir(parents=True)
    shutil.copy(consul_binary, layer / "usr/local/bin/consul")
    for name in ("prometheus", "prometheus-alertmanager"):
        run("dpkg-deb", "-x", debian_package(name), layer)
    shutil.copytree(layer / "lib", layer / "usr/lib", dirs_exist_ok=True)
    shutil.rmtree(layer / "lib")  # which is a link in the machines
    with Machines(tmp_path / "machines", 3, layer) as machines:
        for machine, name in zip(machines.all, "abc", strict=True):
            address = f"10.0.0.{machine.number}"
            machine.shell(
                f"hostname {name} && echo {name} >/etc/hostname && ip addr flush dev e0 &&"
                f"ip addr add {address}/24 dev e0 && ip route add default via 10.0.0.254 &&"
                "mkdir -p -m 700 /root/.ssh && systemctl start ssh"
            )
        a = machines.all[0]
        hosts = "\n".join(f"10.0.0.{number} {name}" for number, name in enumerate("abc", 1))
        with (a.root / "etc/hosts").open("a") as file:
            file.write(f"127.0.0.1 localhost\n{hosts}\n")
        a.shell(f"{_USER} && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        (a.root / "root/.ssh/config").write_text("StrictHostKeyChecking no\nLogLevel ERROR\n")
        for machine in machines.all:
            shutil.copy(
                a.root / "root/.ssh/id_ed25519.pub", machine.root / "root/.ssh/authorized_keys"
            )
        a.copy(onnx_package, "/root")
        for folder in ("consul", "monitoring"):
            shutil.copytree(ROOT / "deploy" / folder, a.root / "root" / folder)
        yield machines


def debian_package(name: str) -> Path:
    """A package of Debian, from the mirror that apt is configured for here."""
    folder = CACHE / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{name}_*.deb")):
        run("sh", "-c", f"cd {folder} && apt-get -qq download {name}")
    (found,) = folder.glob(f"{name}_*.deb")
    return found


def test_the_page_is_true(three: Machines) -> None:
    assert "    deploy/systemd/build-deb python3 dist onnx\n" in PAGE.read_text("utf-8")
    with Shell(three.all[0].command("bash", "--login")) as shell:
        seconds = walk(PAGE, shell, within_s=400)
    print(f"bare machines: the whole page in {seconds:.0f} s")
