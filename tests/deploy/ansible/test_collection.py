"""The Ansible collection against what Fingerpost knows.

`make test-machines` runs it on machines.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from fingerpost.deploy.commands import proxy, register, worker
from fingerpost.deploy.credentials import CREDENTIALS

pytestmark = pytest.mark.core

ROOT = Path(__file__).parents[3]
ANSIBLE = ROOT / "deploy/ansible"
COLLECTION = ANSIBLE / "ansible_collections/fingerpost/cluster"
UNITS = ROOT / "deploy/systemd"
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir())

# Options that the unit or a variable of its own sets, and those of a single model (--model).
TAKEN = {
    "worker": {"host", "port", "models", "devices", "device", "model", "name", "version", "labels",
               "input_layer", "output_layer", "input_mean", "input_std", "image_size",
               "input_layout", "classes"},
    "proxy": {"host", "port", "snapshots"},
    "register": {"service", "command"},
}  # fmt: skip
BOTH = {"registry", "registries", "registry_token", "follow_parent"}
TYPES = {int: "int", float: "float", bool: "bool"}


def options_of(module: Any, name: str) -> dict[str, Any]:
    """The options of a command as those of an argument spec."""
    app = typer.Typer()
    app.callback()(lambda: None)
    module.add_to(app)
    command = vars(typer.main.get_command(app))["commands"][name]
    found = {}
    for each in map(vars, command.params):
        by_credential = each["envvar"] in CREDENTIALS.values()
        if by_credential or each["name"] in TAKEN[name] | BOTH or each["hidden"]:
            continue
        option: dict[str, Any] = {"description": " ".join(each["help"].split())}
        if each["multiple"]:
            option |= {"type": "list", "elements": "str"}
        elif each["is_flag"]:
            option["type"] = "bool"
        else:
            option["type"] = _type_of(each["type_descriptor"].annotation)
        found[each["opts"][0].removeprefix("--").replace("-", "_")] = option
    return dict(sorted(found.items()))


def _type_of(annotation: Any) -> str:
    for known, name in TYPES.items():
        if annotation is known or known in getattr(annotation, "__args__", ()):
            return name
    return "str"


def types(options: dict[str, Any]) -> dict[str, str]:
    return {name: each["type"] for name, each in options.items()}


def spec(role: str) -> dict[str, Any]:
    text = (COLLECTION / "roles" / role / "meta/argument_specs.yml").read_text()
    return dict(yaml.safe_load(text)["argument_specs"]["main"]["options"])


@pytest.mark.parametrize(("name", "module"), [("worker", worker), ("proxy", proxy)])
def test_a_role_takes_the_options_of_its_command(name: str, module: Any) -> None:
    """An option that is new, gone or renamed is so in the role, too."""
    wanted = options_of(module, name)
    found = spec(f"fingerpost_{name}")[f"fingerpost_{name}_options"]["options"]
    assert all(each["description"] for each in found.values())
    assert types(found) == types(wanted), f"write this there:\n{yaml.safe_dump(wanted, width=110)}"


def test_a_server_of_others_takes_the_options_of_register() -> None:
    wanted = options_of(register, "register")
    server = spec("fingerpost_register")["fingerpost_register_servers"]["options"]
    found = server["options"]["options"]
    assert all(each["description"] for each in found.values())
    assert types(found) == types(wanted), f"write this there:\n{yaml.safe_dump(wanted, width=110)}"
    assert [name for name, each in found.items() if each.get("required")] == ["port"]
    unit = (UNITS / "fingerpost-register@.service").read_text()
    assert "EnvironmentFile=/etc/fingerpost/register-%i.env" in unit
    tasks = (COLLECTION / "roles/fingerpost_register/tasks/server.yml").read_text()
    assert "/etc/fingerpost/register-{{ _fingerpost_register_server.service }}.env" in tasks


@pytest.mark.parametrize("name", ["worker", "proxy", "register"])
def test_a_role_takes_the_credentials_that_exist(name: str) -> None:
    found = spec(f"fingerpost_{name}")[f"fingerpost_{name}_credentials"]["options"]
    assert found.keys() <= CREDENTIALS.keys()
    served = {"tls-cert", "tls-key"} if name != "register" else set()
    assert {"registry-token", "registry-ca"} | served <= found.keys()
    assert all(each["no_log"] for each in found.values()), "a secret is not shown"


@pytest.mark.parametrize("role", ROLES)
def test_each_variable_is_described_and_has_its_default(role: str) -> None:
    defaults = yaml.safe_load((COLLECTION / "roles" / role / "defaults/main.yml").read_text())
    described = spec(role)
    assert defaults.keys() == described.keys()
    for name, option in described.items():
        assert option["description"], name
        if "default" in option:
            assert option["default"] == defaults[name], name


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_names_each_variable(role: str) -> None:
    readme = (COLLECTION / "README.md").read_text()
    for name in spec(role):
        assert f"`{name}`" in readme, name


def test_all_of_it_is_yaml() -> None:
    files = [*ANSIBLE.glob("*.yml"), *COLLECTION.rglob("*.yml")]
    assert len(files) > 20
    for file in files:
        assert file.read_text().startswith("---\n"), file
        assert yaml.safe_load(file.read_text()) is not None, file


def test_units_are_not_copied() -> None:
    """They come from the package that is installed, which is built from deploy/systemd."""
    assert not [
        *COLLECTION.rglob("fingerpost-*.service*"),
        *COLLECTION.rglob("fingerpost-*.socket*"),
    ]
    script = (COLLECTION / "roles/fingerpost_common/files/install-units").read_text()
    line = next(line for line in script.splitlines() if "*.service" in line)
    patterns = [each.strip() for each in line.partition(")")[0].split("|")]
    found = {path.name for each in patterns for path in UNITS.glob(each)} | {"fingerpost.conf"}
    assert found == {path.name for path in UNITS.glob("fingerpost*")}
    for file in ("worker.env", "proxy.env"):
        assert any(
            f"/etc/fingerpost/{file}" in path.read_text() for path in UNITS.glob("*.service")
        )


def test_the_version_is_that_of_the_release() -> None:
    from fingerpost.registry.version import __version__

    galaxy = yaml.safe_load((COLLECTION / "galaxy.yml").read_text())
    assert galaxy["version"] == re.sub(r"\.dev.*", "", __version__)


@pytest.fixture(scope="module")
def filters() -> ModuleType:
    place = COLLECTION / "plugins/filter/fingerpost.py"
    found = importlib.util.spec_from_file_location("collection_filters", place)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_options_of_all_types(filters: ModuleType) -> None:
    given = {"max_batch": 64, "tracing": True, "insecure": False, "zone": None,
             "allow_network": ["10.0.0.0/8", "fd00::/8"]}  # fmt: skip
    assert filters.command_line(given) == (
        "--max-batch 64 --tracing --allow-network 10.0.0.0/8 --allow-network fd00::/8"
    )


@pytest.mark.parametrize("value", ["rack 7", "$HOME", 'a"b', "%n", ""])
def test_a_value_that_a_unit_cannot_have(filters: ModuleType, value: str) -> None:
    with pytest.raises(ValueError, match=r"given\.zone: .* cannot stand in a unit"):
        filters.command_line({"zone": value}, "given")


def test_addresses(filters: ModuleType) -> None:
    known = {"a": {"ansible_host": "10.0.0.1"}, "b": {}, "c": {"own": "10.9.0.3"}}
    assert filters.addresses("abc", known, "own") == ["10.0.0.1", "b", "10.9.0.3"]


def test_the_hash_of_a_file(filters: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "wheel").write_bytes(b"abc")
    found = filters.file_hash(str(tmp_path / "wheel"))
    assert found == "a9993e364706816aba3e25717850c26c9cd0d89d"


def test_urls_of_proxies(filters: ModuleType) -> None:
    secure = {"fingerpost_proxy_credentials": {"tls-cert": "PEM"}}
    known = {"a": {"ansible_host": "10.0.0.1"}, "b": secure, "c": {"ansible_host": "fd00::1"}}
    assert filters.proxy_urls("abc", known) == [
        "http://10.0.0.1:12480",
        "https://b:12480",
        "http://[fd00::1]:12480",
    ]


def test_the_example_inventory_is_of_known_variables() -> None:
    names = json.dumps(yaml.safe_load((ANSIBLE / "inventory.example.yml").read_text()))
    known = {name for role in ROLES for name in spec(role)}
    used = set(re.findall(r'"((?:consul|nvidia|fingerpost_\w+?)_\w+)":', names))
    groups = {"consul_servers", "fingerpost_proxies", "fingerpost_workers", "nvidia_gpus"}
    assert used - groups <= known
