"""The locked requirements of the images: complete, hashed, true to pyproject.toml, of no index."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.core

_ROOT = Path(__file__).parents[2]
_LOCKS = _ROOT / "deploy" / "docker" / "requirements"
_TOOLS = _ROOT / "deploy" / "release" / "tools.txt"
_ALL = (*sorted(_LOCKS.glob("*.txt")), _TOOLS)
# What `deploy/release/lock` says.
_SCRIPT = (_ROOT / "deploy" / "release" / "lock").read_text("utf-8")
_EXTRAS: dict[str, tuple[str, ...]] = ast.literal_eval(
    re.findall(r"^EXTRAS = (\{.*?^\})", _SCRIPT, re.DOTALL | re.MULTILINE)[0]
)
_PYPROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
_PROJECT = _PYPROJECT["project"]


def locked(file: Path) -> dict[str, list[Version]]:
    """The versions of each package; by their markers only one of them is installed."""
    found: dict[str, list[Version]] = {}
    for line in file.read_text("utf-8").replace("\\\n", " ").splitlines():
        if line and not line.startswith(("#", "-")):
            requirement = Requirement(line.partition("--hash")[0].strip())
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            found.setdefault(canonicalize_name(requirement.name), []).append(Version(pin.version))
    return found


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for on Linux, with the extras that extras name."""
    listed = list(_PROJECT["dependencies"])
    for extra in extras:
        listed += _PROJECT["optional-dependencies"][extra]
    result = []
    for requirement in map(Requirement, listed):
        if requirement.name == "fingerpost":
            result += wanted(*requirement.extras)
        elif requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"}):
            result.append(requirement)
    return result


@pytest.mark.parametrize("image", sorted(_EXTRAS))
def test_a_lock_holds_what_the_project_asks_for(image: str) -> None:
    """Fails after a change of pyproject.toml until `make lock` has run."""
    versions = locked(_LOCKS / f"{image}.txt")
    missing = [
        str(each)
        for each in wanted(*_EXTRAS[image])
        if not any(
            each.specifier.contains(version)
            for version in versions.get(canonicalize_name(each.name), ())
        )
    ]
    assert not missing, "run `make lock`"


@pytest.mark.parametrize("file", _ALL, ids=lambda path: path.stem)
def test_a_lock_has_no_version_that_pip_does_not_install(file: Path) -> None:
    text = (_ROOT / "deploy" / "release" / "constraints.txt").read_text("utf-8")
    versions = locked(file)
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        constraint = Requirement(line)
        for version in versions.get(constraint.name, ()):
            assert constraint.specifier.contains(version), f"{constraint}: run `make lock`"


def test_no_image_holds_more_than_it_needs() -> None:
    assert {path.stem for path in _LOCKS.iterdir()} == {*_EXTRAS, "build"}
    assert not {"uvloop", "numpy", "onnxruntime"} & locked(_LOCKS / "core.txt").keys()
    frameworks = {"onnxruntime", "openvino", "ai-edge-litert", "tensorflow", "torch"}
    for image in ("onnx", "openvino", "litert", "tensorflow", "torch"):
        assert len(frameworks & locked(_LOCKS / f"{image}.txt").keys()) == 1


@pytest.mark.parametrize("file", _ALL, ids=lambda path: path.stem)
def test_every_package_has_its_hashes_and_no_index_is_named(file: Path) -> None:
    text = file.read_text("utf-8")
    assert "://" not in text
    assert "index-url" not in text
    pins = re.findall(r"^[a-z0-9].*==.*$", text, re.MULTILINE)
    assert pins
    for pin in pins:
        assert pin.endswith("\\")
        assert re.search(re.escape(pin) + r"\n    --hash=sha256:[0-9a-f]{64}", text), pin


def test_the_build_of_an_image_gets_all_that_the_wheel_is_made_of() -> None:
    """.dockerignore leaves out all but what it lists."""
    wheel = _PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    listed = (_ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in listed
    kept = [line.removeprefix("!") for line in listed if line.startswith("!")]
    sources = (*wheel["packages"], *wheel.get("force-include", ()), "README.md", "LICENSE")
    missing = [each for each in sources if not any(f"{each}/".startswith(f"{k}/") for k in kept)]
    assert not missing
