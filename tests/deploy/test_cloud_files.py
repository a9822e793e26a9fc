"""deploy/cloud-init, deploy/packer and deploy/docker as text.

`make test-machines` boots what the first two make, `make test-images` runs the containers.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

pytestmark = pytest.mark.shell

_ROOT = Path(__file__).parents[2]
_TEMPLATE = (_ROOT / "deploy/packer/fingerpost.pkr.hcl").read_text("utf-8")
_USER_DATA = (_ROOT / "deploy/cloud-init/worker.yaml").read_text("utf-8")

# As Packer and its plugins openstack 1.1 and vsphere 1.4 document them, as far as they are used.
_KNOWN = {
    "packer": {"required_version", "required_plugins"},
    "variable": {"type", "default", "description", "validation", "sensitive"},
    "validation": {"condition", "error_message"},
    "openstack": {"image_name", "source_image", "flavor", "networks", "ssh_username"},
    "vsphere-clone": {
        *("vcenter_server", "username", "password", "template", "cluster", "datastore", "vm_name"),
        *("ssh_username", "convert_to_template"),
    },
    "build": {"sources", "provisioner"},
    "file": {"source", "destination"},
    "shell": {"script", "execute_command"},
}


def keys(block: dict[str, Any]) -> set[str]:
    return {key for key in block if not key.startswith("__")}


def named(kind: str) -> dict[str, dict[str, Any]]:
    """The blocks of a kind by their first label."""
    return {
        label.strip('"'): body
        for block in hcl2.loads(_TEMPLATE)[kind]
        for label, body in block.items()
        if not label.startswith("__")
    }


def test_the_template_has_only_keys_that_packer_knows() -> None:
    parsed = hcl2.loads(_TEMPLATE)
    assert keys(parsed) == {"packer", "variable", "source", "build"}
    assert keys(parsed["packer"][0]) == _KNOWN["packer"]
    for body in named("variable").values():
        assert keys(body) <= _KNOWN["variable"]
        for each in body.get("validation", ()):
            assert keys(each) == _KNOWN["validation"]
    for builder, labelled in named("source").items():
        (body,) = (inside for label, inside in labelled.items() if not label.startswith("__"))
        assert keys(body) <= _KNOWN[builder]
    (build,) = parsed["build"]
    assert keys(build) == _KNOWN["build"]
    for provisioner in build["provisioner"]:
        for label, body in provisioner.items():
            if not label.startswith("__"):
                assert keys(body) == _KNOWN[label.strip('"')]


def test_each_variable_is_declared_and_used() -> None:
    used = set(re.findall(r"\bvar\.(\w+)", _TEMPLATE[_TEMPLATE.index("\nsource ") :]))
    assert named("variable").keys() == used
    (validation,) = named("variable")["package"]["validation"]
    assert "The value of package must be" in validation["error_message"]


def test_the_files_say_what_was_tried() -> None:
    assert "Not tried: no Packer" in _TEMPLATE[: _TEMPLATE.index("\npacker {")]
    assert "Not tried: a cloud" in _USER_DATA[: _USER_DATA.index("\nwrite_files")]


@pytest.mark.parametrize("name", ["compose", "foreign"])
def test_every_container_is_strict(name: str) -> None:
    text = (_ROOT / f"deploy/docker/{name}.yaml").read_text("utf-8")
    for service in yaml.safe_load(text)["services"].values():
        assert service["read_only"] in (True, "${SERVER_READ_ONLY:-true}")
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert 0 < service["pids_limit"] <= 4096
        assert re.fullmatch(r"(\$\{\w+:-)?\d+[mg]\}?", service["mem_limit"])
        assert all(":size=" in each for each in service["tmpfs"])


def run_join(changed: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the user-data's script with other values, and with the programs in `folder` first."""
    settings, script = (each["content"] for each in yaml.safe_load(_USER_DATA)["write_files"])
    for key, value in changed.items():
        settings, count = re.subn(rf"^{key}=.*$", f"{key}={value}", settings, flags=re.MULTILINE)
        assert count == 1
    file = folder / "fingerpost.env"
    file.write_text(settings, "utf-8")
    script = script.replace("/etc/fingerpost/cloud-init/", f"{folder}/")
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"REGISTRY": ""}, "fingerpost.env: REGISTRY is missing"),
        ({"PROXY": ""}, "fingerpost.env: PROXY is missing"),
        (
            {"PACKAGE": "ftp://files/x.deb"},
            "fingerpost.env: PACKAGE=ftp://files/x.deb is not a valid",
        ),
        ({"PACKAGE": "", "MODELS": "/srv"}, "fingerpost.env: MODELS=/srv is not a valid URL"),
        (
            {"REGISTRY_TOKEN_FILE": "/nowhere"},
            "fingerpost.env: REGISTRY_TOKEN_FILE=/nowhere is not a file with a token",
        ),
        (
            {"REGISTRY_TOKEN_FILE": "/etc/passwd"},
            "fingerpost.env: REGISTRY_TOKEN_FILE=/etc/passwd can be read by others: use mode 0600",
        ),
        (
            {"REGISTRY_CA_FILE": "/nowhere"},
            "fingerpost.env: REGISTRY_CA_FILE=/nowhere is not a file with a certificate",
        ),
    ],
    ids=["registry", "proxy", "package", "models", "token", "public token", "authority"],
)
def test_a_wrong_value_is_refused_before_anything_changes(
    changed: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = run_join(changed, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert not done.stdout


def program(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_a_token_of_a_secret_store_and_an_authority_reach_join(tmp_path: Path) -> None:
    """As docs/nodes.md says: a program that writes the token, and `write_files` for the CA."""
    program(tmp_path / "fingerpost", 'printf "%s\n" "$@"')
    token, authority = tmp_path / "registry-token", tmp_path / "registry-ca.pem"
    authority.write_text("certificate")
    changed = {
        "PACKAGE": "", "MODELS": "", "OPTIONS": "", "REGISTRY_TOKEN_FILE": str(token),
        "REGISTRY_CA_FILE": str(authority),
    }  # fmt: skip
    program(tmp_path / "secrets", f"umask 077; echo secret > {token}")
    done = run_join(changed, tmp_path)
    assert done.stdout.split()[-4:] == [
        "--registry-token-file", str(token), "--registry-ca-file", str(authority)
    ]  # fmt: skip
    assert "secret\n" not in done.stdout
    program(tmp_path / "secrets", "echo the store is sealed >&2; exit 1")
    done = run_join(changed, tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"the store is sealed\nfingerpost.env: {tmp_path}/secrets has failed: its output stands "
        "above\n"
    )


@pytest.mark.parametrize("name", ["provision", "build-tree"])
def test_a_missing_package_is_one_line(name: str, tmp_path: Path) -> None:
    command = [_ROOT / "deploy/packer" / name, tmp_path / "no.deb", tmp_path / "tree"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no.deb' is not a readable file: give" in done.stderr
    assert not (tmp_path / "tree").exists()
