"""The Ansible collection with the Debian package in place of a wheel, on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.machines.machine import Machine, Machines
from tests.machines.playbooks import Playbooks, Release, make_keys, recap
from tests.support.digits import write_digits

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

WORKERS = "fingerpost-workers"


class Site(NamedTuple):
    """The machine, and the variables of its sources of Fingerpost."""

    machine: Machine
    playbooks: Playbooks
    wheel: dict[str, Any]
    package: dict[str, Any]
    consul: str

    def run(self, source: dict[str, Any]) -> dict[str, int]:
        """Make it what the inventory says; returns how many tasks did what."""
        groups = ("consul_servers", "fingerpost_proxies", "fingerpost_workers")
        self.playbooks.write_inventory(
            {group: [self.machine] for group in groups}, consul_binary=self.consul, **source
        )
        return recap(self.playbooks.run("site.yml"))[self.machine.name]


@pytest.fixture(scope="module")
def site(
    consul_binary: str,
    release: Release,
    wheelhouse: Path,
    onnx_package: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ansible")
    layer, digits = folder / "layer", folder / "digits"
    (layer / "srv/fingerpost/models/digits").mkdir(parents=True)
    write_digits(digits).model.rename(layer / "srv/fingerpost/models/digits/1")
    key = make_keys(folder, layer)
    (folder / "home").mkdir()
    wheel = {
        "fingerpost_common_wheel": str(release.wheel),
        "fingerpost_common_wheelhouse": str(wheelhouse),
        "fingerpost_common_extras": ["python", "security"],
    }
    with Machines(folder / "machines", 1, layer) as machines:
        yield Site(
            machine=machines.all[0],
            playbooks=Playbooks(folder / "home", key),
            wheel=wheel,
            package={"fingerpost_common_deb": str(onnx_package)},
            consul=consul_binary,
        )


def test_a_package_takes_the_place_of_a_wheel(site: Site) -> None:
    site.run(site.wheel)
    assert (site.machine.root / "opt/fingerpost").is_symlink()
    before = site.machine.property(WORKERS, "MainPID")
    site.run(site.package)
    assert not (site.machine.root / "opt/fingerpost").is_symlink()
    assert "fingerpost-onnx" in site.machine.run("dpkg-query", "-S", "/opt/fingerpost/bin/python3")
    assert site.machine.property(WORKERS, "MainPID") not in ("0", before)
    fragment = site.machine.property(WORKERS, "FragmentPath")
    assert fragment.startswith(("/lib/", "/usr/lib/")), "the unit is that of the package"
    named = site.machine.shell("curl -sf -H 'Accept: text/plain' 127.0.0.1:12480/v1/resolve/digits")
    assert named.startswith(f"{site.machine.address}:12490")


def test_the_second_run_changes_nothing(site: Site) -> None:
    before = site.machine.property(WORKERS, "MainPID")
    assert site.run(site.package)["changed"] == 0
    assert site.machine.property(WORKERS, "MainPID") == before
