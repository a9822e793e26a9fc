"""The image of deploy/packer, booted, and deploy/cloud-init/worker.yaml run by the real cloud-init.

The image is made by mmdebstrap, with what the Packer template runs in a machine of a cloud.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machines.machine import CONSUL_UNIT, ROOT, SCRIPT, Machine, Machines, run
from tests.support.digits import write_digits
from tests.support.waiting import until_blocking

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

USER_DATA = ROOT / "deploy/cloud-init/worker.yaml"
FILES = "http://10.79.0.254:8000"


@pytest.fixture(scope="module")
def files(onnx_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the machines fetch: an archive of models, and the package."""
    folder = tmp_path_factory.mktemp("files")
    model = write_digits(tmp_path_factory.mktemp("digits")).model
    with tarfile.open(folder / "models.tar.gz", "w:gz") as archive:
        archive.add(model, "digits/1")
    shutil.copy(onnx_package, folder / "fingerpost.deb")
    return folder


@pytest.fixture(scope="module")
def image(onnx_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as a tree of files."""
    tree = tmp_path_factory.mktemp("image") / "tree"
    run(ROOT / "deploy/packer/build-tree", onnx_package, tree, timeout_s=1200)
    return tree


@pytest.fixture(scope="module")
def cluster(
    consul_binary: str, image: Path, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    """One machine of the image with Consul and a proxy; further ones boot when a test says so."""
    layer = tmp_path_factory.mktemp("layer")
    (layer / "usr/local/bin").mkdir(parents=True)
    shutil.copy(consul_binary, layer / "usr/local/bin/consul")
    configured = layer / "etc/cloud/cloud.cfg.d"
    configured.mkdir(parents=True)
    (configured / "90-test.cfg").write_text(
        "network: {config: disabled}\ndatasource_list: [NoCloud, None]\n"
    )
    units = layer / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "consul.service").write_text(CONSUL_UNIT)
    with Machines(tmp_path_factory.mktemp("machines"), 1, layer, image) as machines:
        one = machines.all[0]
        one.start_consul(1, server=True)
        one.until("curl -sf 127.0.0.1:8500/v1/status/leader | grep 8300")
        one.run("systemctl", "enable", "--now", "fingerpost-proxy.socket")
        one.until("curl -sf 127.0.0.1:12480/health/ready")
        serve = (sys.executable, "-m", "http.server", "8000", "--directory", files)
        server = subprocess.Popen(
            [str(each) for each in (SCRIPT, "near", *serve)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield machines
        finally:
            server.terminate()
            server.wait()


def seed(machine: Machine, files: Path, **changed: str) -> None:
    """Give a machine its user-data, as a cloud does, before it boots."""
    values = {
        "REGISTRY": "consul://10.79.0.1:8500",
        "PROXY": "http://10.79.0.1:12480",
        "PACKAGE": "",
        "MODELS": f"{FILES}/models.tar.gz",
        "MODELS_SHA256": hashlib.sha256((files / "models.tar.gz").read_bytes()).hexdigest(),
        "OPTIONS": '"--port 12490 -- --max-batch 16"',
        **changed,
    }
    text = USER_DATA.read_text("utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^(      {key}=).*$", rf"\g<1>{value}", text)
        assert count == 1, key
    booted = (machine.root / "etc").exists()
    root = machine.root if booted else machine.root.with_name("up")  # which is laid over the image
    folder = root / "var/lib/cloud/seed/nocloud"
    folder.mkdir(parents=True)
    (folder / "user-data").write_text(text, "utf-8")
    name = f"node-{machine.number}"
    (folder / "meta-data").write_text(f"instance-id: i-{machine.number}\nlocal-hostname: {name}\n")


def outcome(machine: Machine) -> str:
    """What cloud-init did, when it is over."""
    machine.run("cloud-init", "status", "--wait", check=False, timeout_s=400)
    return machine.run("cat", "/var/log/cloud-init-output.log")


def listed(cluster: Machines) -> set[str]:
    one = cluster.all[0]
    text = one.shell("curl -sf 127.0.0.1:12480/v1/resolve/digits || true")
    return {each["host"] for each in json.loads(text)["instances"]} if text else set()


def test_cloud_init_finds_the_user_data_valid(cluster: Machines) -> None:
    one = cluster.all[0]
    one.copy(USER_DATA, "/root")
    said = one.run("cloud-init", "schema", "--config-file", "/root/worker.yaml")
    assert "Valid" in said
    wrong = USER_DATA.read_text("utf-8").replace("    permissions: ", "    permission: ", 1)
    (one.root / "root/wrong.yaml").write_text(wrong, "utf-8")
    said = one.run("cloud-init", "schema", "--config-file", "/root/wrong.yaml", check=False)
    assert "permission" in said
    assert "Valid" not in said


def test_an_image_has_no_identity_and_starts_nothing(cluster: Machines, image: Path) -> None:
    assert not list((image / "etc/ssh").glob("ssh_host_*"))
    assert (image / "etc/machine-id").read_text() == ""
    assert not [each.name for each in (image / "root").iterdir() if not each.name.startswith(".")]
    assert cluster.all[0].property("fingerpost-workers", "ActiveState") == "inactive"


def test_a_machine_of_the_image_joins_at_its_first_boot(cluster: Machines, files: Path) -> None:
    two = cluster.further()
    seed(two, files)
    began = time.monotonic()
    two.boot()
    said = outcome(two)
    assert re.search(rf"{re.escape(two.address)}:12490 digits answered an image in \d+ ms", said), (
        said
    )
    print(f"\nfrom power on to the first image: {time.monotonic() - began:.1f} s")
    assert two.run("cloud-init", "status").strip() == "status: done"
    assert two.property("fingerpost-workers", "ActiveState") == "active"
    until_blocking(lambda: listed(cluster) == {two.address}, within_s=30)
    assert two.run("hostname").strip() == "node-2"
    assert "--max-batch 16" in two.run("cat", "/etc/fingerpost/worker.env")


def test_a_plain_debian_fetches_the_package(cluster: Machines, files: Path) -> None:
    """It boots without the package; for cloud-init the second boot is the first."""
    three = cluster.further()
    three.boot()
    three.run("dpkg", "--purge", "fingerpost-onnx")
    three.kill()
    hashed = hashlib.sha256((files / "fingerpost.deb").read_bytes()).hexdigest()
    seed(three, files, PACKAGE=f"{FILES}/fingerpost.deb", PACKAGE_SHA256=hashed)
    three.boot()
    said = outcome(three)
    assert re.search(
        rf"{re.escape(three.address)}:12490 digits answered an image in \d+ ms", said
    ), said
    until_blocking(lambda: listed(cluster) == {"10.79.0.2", three.address}, within_s=30)


def test_another_hash_is_refused_before_anything_changes(cluster: Machines, files: Path) -> None:
    four = cluster.further()
    seed(four, files, MODELS_SHA256="0" * 64)
    four.boot()
    said = outcome(four)
    assert (
        f"fingerpost.env: MODELS_SHA256={'0' * 64} is not the hash of {FILES}/models.tar.gz" in said
    )
    assert "error" in four.run("cloud-init", "status", check=False)
    assert not list((four.root / "srv/fingerpost/models").iterdir())
    assert four.property("fingerpost-workers", "ActiveState") == "inactive"
