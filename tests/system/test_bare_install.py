"""`pip install fingerpost` without extras, from the wheel, in an environment of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What only workers need.
ML = {
    "tensorflow",
    "tensorflow_cpu",
    "keras",
    "torch",
    "onnxruntime",
    "numpy",
    "scikit_learn",
    "uvloop",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder)
    # What is imported here is compiled then, which is little of what is installed.
    pip(folder / "bin", "install", "--quiet", "--no-compile", ROOT)
    return folder / "bin"


def pip(bare: Path, *arguments: str | Path) -> str:
    """What pip of this environment says of the bare one, which is made faster without its own."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        bare / "python",
    ]
    done = subprocess.run(
        [*command, *arguments], check=True, timeout=110, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=60, check=False
    )


def test_it_brings_no_ml_framework(bare: Path) -> None:
    listed = json.loads(pip(bare, "list", "--format=json"))
    names = {each["name"].lower().replace("-", "_") for each in listed}
    assert "fingerpost" in names
    assert not names & ML


def test_client_proxy_and_registry_work_without_one(bare: Path) -> None:
    code = (
        "import fingerpost.client, fingerpost.proxy, fingerpost.registry.embedded, pathlib;"
        "import fingerpost.testing;"
        "root = pathlib.Path(fingerpost.client.__file__).parents[1];"
        "print(sorted(p.parent.name for p in root.glob('*/py.typed')))"
    )
    done = run(bare / "python", "-c", code)
    rooms = ["basics", "client", "deploy", "errors", "proxy", "registry", "security"]
    assert done.stdout.strip() == str([*rooms, "testing", "worker"]), done
    assert run(bare / "fingerpost", "--help").returncode == 0


def test_the_version_of_a_wheel(bare: Path) -> None:
    code = (
        "import importlib.metadata, fingerpost.client, fingerpost.worker;"
        "print(fingerpost.client.__version__, fingerpost.worker.__version__,"
        " importlib.metadata.version('fingerpost'))"
    )
    (version,) = set(run(bare / "python", "-c", code).stdout.split())
    for command in ([bare / "fingerpost"], [bare / "python", "-P", "-m", "fingerpost"]):
        said = run(*command, "--version").stdout
        assert re.fullmatch(
            rf"fingerpost {re.escape(version)} \(commit [0-9a-f]{{12}}(-dirty)?\)\n", said
        ), said


def test_what_needs_one_says_how_to_get_it(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"")
    for command in (
        ("worker", "--model", tmp_path / "model.keras"),
        ("classify", "--model", tmp_path / "model.keras", "x.png"),
        ("train", "--images", tmp_path, "--out", tmp_path / "m"),
        ("bench", "digits", "--plot", tmp_path / "x.png"),
        ("demo",),
    ):
        done = run(bare / "fingerpost", *command)
        assert done.returncode == 1
        assert "pip install 'fingerpost[" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_join_finds_its_units(bare: Path) -> None:
    code = (
        "from pathlib import Path;"
        "from fingerpost.deploy.join.plan import JoinPlan;"
        "plan = JoinPlan.make(registry='embedded', models=Path('/srv/m'), options=[],"
        " command=Path('/opt/f'), credentials={});"
        "print(plan.files[-1].content)"
    )
    done = run(bare / "python", "-c", code)
    assert "ExecStart=/opt/f worker --models" in done.stdout, done.stderr
