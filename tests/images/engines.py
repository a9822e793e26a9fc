"""The engines that build and run images: buildah, podman and Docker's engine, with own folders.

They need root, and Debian's packages buildah, podman, skopeo, runc, mmdebstrap, docker.io and
docker-compose. No public registry of images is asked: the base is made from Debian's packages.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.support.waiting import until_blocking
from tests.support.walks import Shell

__all__ = ["BASE", "CPU_TORCH", "Docker", "Podman", "image", "need", "run"]

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "images"
BASE = "localhost/fingerpost-test:base"
_TORCH = version("torch")
# The image torch is then of this build; elsewhere of the locked one, which brings CUDA.
CPU_TORCH = _TORCH.endswith("+cpu")
_CA = "/etc/ssl/certs/ca-certificates.crt"
_NONE: Mapping[str, str] = MappingProxyType({})
_LIMITS = "nofile=20000:20000"
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def need(*programs: str) -> None:
    """Fail the test where a program is missing: nothing is skipped."""
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        pytest.fail(
            f"{', '.join(missing)} is missing: apt-get install --no-install-recommends "
            "buildah podman skopeo runc mmdebstrap docker.io docker-compose"
        )


def run(
    *command: object,
    check: bool = True,
    timeout_s: float = 1000,
    environment: Mapping[str, str] = _NONE,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(each) for each in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert not check or done.returncode == 0, (
        f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    )
    return done


def torch_wheel() -> Path:
    """The wheel of the PyTorch that this environment has."""
    folder = CACHE / "torch"
    if not (found := list(folder.glob(f"torch-{_TORCH}-*.whl"))):
        download = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder)
        run(*download, "--only-binary", ":all:", f"torch=={_TORCH}")
        found = list(folder.glob(f"torch-{_TORCH}-*.whl"))
    return found[0]


@contextmanager
def served(wheel: Path) -> Iterator[tuple[str, str]]:
    """A package index of one wheel, on this machine: its requirement with the hash, and the URL."""
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=wheel.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            yield f"torch=={_TORCH} --hash=sha256:{digest}", url
        finally:
            server.shutdown()
            thread.join()


def image(target: str) -> str:
    return f"localhost/fingerpost-test:{target}"


class Podman:
    """buildah and podman with a store of images of this checkout, which later runs find again."""

    def __init__(self) -> None:
        need("buildah", "podman", "skopeo", "runc", "mmdebstrap")
        CACHE.mkdir(parents=True, exist_ok=True)
        self._conf = CACHE / "containers.conf"
        self._conf.write_text(_CONTAINERS_CONF, "utf-8")
        self._environment = {"CONTAINERS_CONF": str(self._conf)}
        self.commit = ""  # of the last build
        self._place = ("--root", CACHE / "store", "--runroot", CACHE / "run")

    def __call__(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("podman", *self._place, *arguments, check=check, environment=self._environment)

    def buildah(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("buildah", *self._place, *arguments, check=check, environment=self._environment)

    def has(self, name: str) -> bool:
        return self("image", "exists", name, check=False).returncode == 0

    def make_base(self) -> None:
        """Debian 12 as its slim image is, from the packages of the mirror that apt uses here."""
        if self.has(BASE):
            return
        archive = CACHE / "base.tar"
        if not archive.exists():
            left_out = [f"/usr/share/{each}/*" for each in ("man", "locale", "info")]
            options = [f"--dpkgopt=path-exclude={each}" for each in left_out]
            run(
                "mmdebstrap",
                "--variant=minbase",
                *options,
                "bookworm",
                archive.with_suffix(".part.tar"),
            )
            archive.with_suffix(".part.tar").rename(archive)
        self("import", "--quiet", archive, BASE)

    def build(
        self, target: str, *options: object, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Build a target of the Dockerfile; pip asks the index that it is configured for here."""
        self.make_base()
        authority = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or _CA
        pip = CACHE / "pip.conf"
        index = os.environ.get("PIP_INDEX_URL")
        lines = ["[global]", "cert = /run/secrets/ca", *([f"index-url = {index}"] if index else ())]
        pip.write_text("\n".join(lines) + "\n")
        self.commit = run("git", "rev-parse", "HEAD").stdout.strip()
        if target == "torch" and CPU_TORCH and not options:
            with served(torch_wheel()) as (requirement, url):
                pip.write_text("\n".join((*lines, f"find-links = {url}")) + "\n")
                build = ("--build-arg", f"TORCH_CPU={requirement}")
                return self._bud(target, pip, authority, build, check=check)
        return self._bud(target, pip, authority, options, check=check)

    def _bud(
        self, target: str, pip: Path, authority: str, options: tuple[object, ...], *, check: bool
    ) -> subprocess.CompletedProcess[str]:
        done = self.buildah(
            *(
                "bud",
                "--isolation",
                "chroot",
                "--network",
                "host",
                "--layers",
                "--format",
                "docker",
            ),
            *("--build-arg", f"BASE={BASE}", "--build-arg", f"COMMIT={self.commit}"),
            *("--secret", f"id=pip_conf,src={pip}", "--secret", f"id=ca,src={authority}"),
            *("--target", target, "-t", image(target), "-f", "deploy/docker/Dockerfile"),
            *options,
            ".",
            check=False,
        )
        # One container for each layer stays, also with --rm and --force-rm (buildah 1.28).
        self.buildah("rm", "--all", check=False)
        assert not check or done.returncode == 0, (
            f"{target}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
        return done

    def build_around(self, name: str, binary: Path, folder: str, user: str = "65534:65534") -> str:
        """An image of one program from outside, on the base, with a folder for its user's data."""
        tag = image(name)
        built_for = self("image", "inspect", "--format", "{{.Config.User}}", tag, check=False)
        if built_for.stdout.strip() != user:
            made = self.buildah("from", BASE).stdout.strip()
            self.buildah("copy", "--chmod", "755", made, binary, f"/usr/bin/{name}")
            for words in (("mkdir", "-p", folder), ("chown", user, folder)):
                self.buildah("run", "--isolation", "chroot", made, "--", *words)
            entry = ("--entrypoint", json.dumps([name]), "--cmd", "")
            self.buildah("config", *entry, "--user", user, made)
            self.buildah("commit", "--quiet", "--rm", "--format", "docker", made, tag)
        return tag

    def hand_over(self, tag: str, docker: Docker) -> None:
        """Copy an image to Docker's engine."""
        place = f"[overlay@{CACHE / 'store'}+{CACHE / 'run'}]"
        run(
            *("skopeo", "copy", "--quiet", "--dest-daemon-host", docker.host),
            *(
                f"containers-storage:{place}{tag}",
                f"docker-daemon:{tag.removeprefix('localhost/')}",
            ),
        )


class Docker:
    """Docker's engine in a network namespace of its own, which ends with it."""

    def __init__(self, folder: Path) -> None:
        need("dockerd", "docker-compose", "unshare", "nsenter", "runc")
        self._folder = folder
        self.host = f"unix://{folder / 'sock'}"

    @contextmanager
    def running(self) -> Iterator[Docker]:
        folder = self._folder
        daemon = [
            *("/usr/sbin/dockerd", "-H", self.host, "--pidfile", folder / "pid"),
            *("--data-root", folder / "data", "--exec-root", folder / "exec"),
            *("--default-ulimit", _LIMITS, "--exec-opt", "native.cgroupdriver=cgroupfs"),
        ]
        words = " ".join(str(each) for each in daemon)
        with (folder / "dockerd.log").open("wb") as log:
            # A group of its own: Ctrl-C at a terminal must not end it before its containers.
            process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {words}"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until_blocking(lambda: self("info", check=False).returncode == 0, within_s=60)
            self._pid = process.pid
            yield self
        finally:
            left = self("ps", "-aq", check=False).stdout.split()
            if left:
                self("rm", "-f", "-v", *left, check=False)
            process.terminate()
            process.wait(60)
            run("umount", "-q", folder / "exec" / "netns" / "default", check=False)

    def __call__(
        self, *arguments: object, check: bool = True, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return run("docker", "-H", self.host, *arguments, check=check, timeout_s=timeout_s)

    def compose(
        self,
        *arguments: object,
        settings: Mapping[str, str],
        check: bool = True,
        project: str = "test",
        more: tuple[object, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        files = ("deploy/docker/compose.yaml", *more)
        named = [word for each in files for word in ("-f", each)]
        command = ("docker-compose", *named, "-p", project)
        environment = {"DOCKER_HOST": self.host, **settings}
        return run(*command, *arguments, check=check, environment=environment)

    def shell(self, folder: Path, **environment: str) -> Shell:
        """A shell on the host of this engine, as a reader of the documents has one."""
        tools = self._folder / "bin"
        tools.mkdir()
        # Debian 12 has docker-compose 1.29, which is a program of its own.
        (tools / "docker").write_text(
            f"#!/bin/sh\nexport DOCKER_HOST={self.host}\n"
            'case $1 in compose) shift; exec docker-compose "$@" ;; esac\n'
            f'exec {shutil.which("docker")} "$@"\n'
        )
        (tools / "docker").chmod(0o755)
        paths = {"PATH": f"{tools}:{os.environ['PATH']}"}
        inside = ("nsenter", f"--net=/proc/{self._pid}/ns/net", "bash")
        return Shell(inside, folder=folder, environment={**paths, **environment})

    def get(self, url: str) -> str | None:
        """What a URL answers inside the engine's network; None where nobody does."""
        done = run(
            *(f"nsenter --net=/proc/{self._pid}/ns/net curl -sf -m 5".split()), url, check=False
        )
        return done.stdout if done.returncode == 0 else None

    def inspect(self, name: str, what: str) -> Any:
        return json.loads(self("inspect", name, "--format", f"{{{{json .{what}}}}}").stdout)
