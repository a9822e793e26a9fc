"""What is in the images, and what is not."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.images.conftest import TARGETS
from tests.images.engines import CPU_TORCH, Podman, image, run
from tests.images.strict import FRAMEWORKS, MODEL, STRICT, temporary_files, write_model
from tests.support.colours import encoded
from tests.support.processes import FINGERPOST
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.system

# Bytes of the files of an image; docs/containers.md states what they were.
_MOST = {
    "core": 150_000_000,
    "xds": 175_000_000,
    "onnx": 350_000_000,
    "openvino": 500_000_000,
    "litert": 400_000_000,
    "tensorflow": 2_000_000_000,
    "torch": 8_000_000_000,
    "gpu": 8_000_000_000,
}
_CPU_TORCH = 1_300_000_000
# Names of programs that only help an attacker.
_NEVER = {
    *("sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "gcc", "cc", "ld", "make"),
    *("pip", "pip3", "uv", "git", "curl", "wget", "su", "mount"),
}
_SETUID = 0o6000


@pytest.fixture(scope="module", params=TARGETS)
def inspected(built: Podman, request: pytest.FixtureRequest) -> dict[str, Any]:
    target: str = request.param
    (found,) = json.loads(built("image", "inspect", image(target)).stdout)
    return {**found, "target": target}


def test_it_is_small(inspected: dict[str, Any]) -> None:
    target = inspected["target"]
    print(f"{target}: {inspected['Size'] / 1e6:,.0f} MB")
    assert inspected["Size"] <= (_CPU_TORCH if target == "torch" and CPU_TORCH else _MOST[target])


def test_its_configuration(inspected: dict[str, Any]) -> None:
    config = inspected["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["fingerpost"]
    assert config["StopSignal"] == "SIGTERM"
    assert inspected["Healthcheck"]["Test"][0] == "CMD"  # no shell is there to run it


def test_it_holds_no_shell_no_package_manager_and_no_compiler(
    built: Podman, inspected: dict[str, Any], tmp_path: Path
) -> None:
    if inspected["target"] == "gpu":
        return  # it keeps its base
    container = built("create", "--no-healthcheck", image(inspected["target"])).stdout.strip()
    archive = tmp_path / "image.tar"
    try:
        built("export", "-o", archive, container)
    finally:
        built("rm", container)
    with tarfile.open(archive) as files:
        members = files.getmembers()
    programs = {Path(each.name).name for each in members if "/bin/" in f"/{each.name}"}
    assert "fingerpost" in programs
    assert not programs & _NEVER
    assert not [each.name for each in members if each.isfile() and each.mode & _SETUID]
    names = {each.name for each in members}
    assert not [name for name in names if "/site-packages/pip/" in name]
    assert not [name for name in names if "run/secrets" in name or name.endswith("pip.conf")]
    # For scanners: which of Debian's packages the files are from, and their licences.
    assert {"var/lib/dpkg/status.d/libc6", "var/lib/dpkg/status.d/libssl3"} <= names
    assert "usr/share/doc/libc6/copyright" in names


def test_it_says_its_commit(built: Podman, inspected: dict[str, Any]) -> None:
    """And runs on a read-only file system without capabilities."""
    done = built("run", "--rm", *STRICT, image(inspected["target"]), "--version")
    assert f"(commit {built.commit[:12]})" in done.stdout


@pytest.mark.parametrize("target", [each for each in TARGETS if each in FRAMEWORKS])
def test_a_model_is_served_strictly(built: Podman, target: str, tmp_path: Path) -> None:
    """A whole cluster in one container that has no right, no network and no place to write."""
    models, images = tmp_path / "models", tmp_path / "images"
    images.mkdir()
    write_model(FRAMEWORKS[target], models)
    for colour in ("red", "blue"):
        (images / f"{colour}.jpg").write_bytes(encoded(colour, form="JPEG"))
    tmp_path.chmod(0o755)
    mounted = ("-v", f"{models}:/models:ro", "-v", f"{images}:/images:ro")
    name = f"strict-{target}"
    built(
        *("run", "-d", "--name", name, *STRICT, "--network", "none"),
        *(*temporary_files(target), *mounted, image(target), "up", "--models", "/models"),
    )
    try:
        classify = ("exec", name, "fingerpost", "classify", "--json", "--model", "colours")
        first = (*classify, "/images/red.jpg")
        until_blocking(lambda: built(*first, check=False).returncode == 0, within_s=300, every_s=1)
        for colour in ("red", "blue"):
            done = built(*classify, f"/images/{colour}.jpg")
            best = json.loads(done.stdout)["predictions"][0]
            assert best[0] == colour, done.stdout
        built("stop", "-t", "60", name)
        state = json.loads(built("container", "inspect", name).stdout)[0]["State"]
        assert state["ExitCode"] == 0, built("logs", name).stderr[-2000:]
    finally:
        built("rm", "-f", name)


def test_no_room_for_a_models_copy_is_one_line(built: Podman, tmp_path: Path) -> None:
    """Its place for temporary files has 64 KB, and the signed model 300."""
    write_model("onnx", tmp_path / "models")
    version = tmp_path / "models" / MODEL / "1"
    (version / "more.bin").write_bytes(b"x" * 300_000)
    key = tmp_path / "models.key"
    run(*FINGERPOST, "keys", "init", "--key", key, "--keys-file", tmp_path / "keys.json")
    run(*FINGERPOST, "model", "sign", version, "--key", key)
    tmp_path.chmod(0o755)
    small = ("--tmpfs=/tmp:size=64k", "-v", f"{tmp_path}:/test:ro", "--network", "none")
    done = built(
        *("run", "--rm", *STRICT, *small, image("onnx"), "up"),
        *("--models", "/test/models", "--require-signature", "/test/keys.json"),
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "No space left on device" in line]
    assert done.returncode == 1
    assert said, done.stderr
    assert "Traceback" not in done.stderr
    assert "/test/models/colours/1/more.bin cannot be copied to /tmp/fingerpost-copy-" in said[0]
    assert "TMPDIR names another folder" in said[0]
    done = built(
        *("run", "--rm", *STRICT, *small, image("onnx"), "doctor", "--json"),
        *("--models", "/test/models"),
        check=False,
    )
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert found["temporary files"]["level"] == "warning"
    assert "TMPDIR" in found["temporary files"]["remedy"]


def test_a_folder_that_is_not_open_to_the_user_is_one_line(built: Podman, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)  # a folder of root, and the container's user is another one
    done = built(
        *("run", "--rm", *STRICT, "--network", "none", "-v", f"{tmp_path}:/test:ro", image("onnx")),
        *("evaluate", "--model", "/test/models/colours", "--images", "/test/images"),
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("fingerpost: /test/images is not open to this user (65532)")


def test_a_build_leaves_no_container_behind(built: Podman) -> None:
    assert not built.buildah("containers", "--quiet").stdout


def test_core_has_no_framework_and_says_so(built: Podman, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    tmp_path.chmod(0o755)
    mounted = ("-v", f"{tmp_path}:/models:ro")
    done = built(
        *("run", "--rm", "--no-healthcheck", "--read-only", *mounted, image("core")),
        *("worker", "--model", "/models/model.onnx"),
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'fingerpost[python]', or take the image that has it" in done.stderr


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("onyx", (), 'target "onyx"'),
        ("core", ("--build-arg", "COMMIT=main"), "FINGERPOST_COMMIT='main' is not a commit"),
        (
            "torch",
            ("--build-arg", "TORCH_CPU=torch"),
            "TORCH_CPU='torch' is not a build of PyTorch",
        ),
        ("core", ("--build-arg", "BASE=localhost/fingerpost-test:core"), "fingerpost-test:core"),
    ],
    ids=["target", "commit", "torch", "base"],
)
def test_a_wrong_value_ends_the_build(
    built: Podman, target: str, options: tuple[str, ...], message: str
) -> None:
    before = built("images", "--quiet", "--no-trunc", image("core")).stdout
    done = built.build(target, *options, check=False)
    assert done.returncode
    assert message in done.stdout + done.stderr
    assert built("images", "--quiet", "--no-trunc", image("core")).stdout == before
