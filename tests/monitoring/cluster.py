"""A small cluster in which each alert has something to break."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.certificates import Authority
from tests.support.forwarder import Forwarder
from tests.support.ports import free_ports
from tests.support.processes import FINGERPOST, Process, Processes, get_json
from tests.support.python_models import write_python_model
from tests.support.waiting import until_blocking

__all__ = ["TOKEN", "Cluster", "ForwarderThread", "Load", "gray", "post", "running_cluster"]

TOKEN = "nobody-else-has-it-0123"  # noqa: S105 - of this test alone
# Nearly white images take long, and black ones break the model.
_MODEL = """\
import time

import numpy as np


class Model:
    height = width = 8

    def __init__(self, folder):
        pass

    def predict(self, batch):
        means = batch.mean(axis=(1, 2, 3))
        time.sleep(0.05 * float((means > 240).sum()))
        if (means < 5).any():
            raise RuntimeError("this image breaks the model")
        return np.tile(np.array([0.9, 0.1], np.float32), (len(batch), 1))
"""


def gray(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (16, 16), value).save(out, "PNG")
    return out.getvalue()


def post(url: str, body: bytes | None, *, tls: ssl.SSLContext | None = None, **headers: str) -> int:
    """The status of the answer to POST, without a body to GET; 0 where there is none."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10, context=tls) as answer:  # noqa: S310
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, OSError):
        return 0


class Load:
    """Threads that call something again and again, until they are ended.

    Args:
        call: what to call.
        threads: so many at once.
        pause_s: of each thread, after each call.
    """

    def __init__(self, call: Any, *, threads: int = 1, pause_s: float = 0.05) -> None:
        self._over = threading.Event()
        self._call, self._pause_s = call, pause_s
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for each in self._threads:
            each.start()

    def _run(self) -> None:
        while not self._over.wait(self._pause_s):
            self._call()

    def end(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join(15)


class ForwarderThread:
    """A `Forwarder` in an event loop of its own, which can be cut and mended."""

    def __init__(self, to_port: int) -> None:
        self._forwarder = Forwarder(to_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.mend()

    @property
    def port(self) -> int:
        return self._forwarder.port

    def mend(self) -> None:
        asyncio.run_coroutine_threadsafe(self._forwarder.__aenter__(), self._loop).result(10)

    def cut(self) -> None:
        asyncio.run_coroutine_threadsafe(self._forwarder.__aexit__(), self._loop).result(10)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Cluster:
    """Registry, three proxies, workers of `digits`, `lonely` and `leased`.

    Of the proxies, `plain` and `lost` are those of Prometheus' configuration; `lost` looks for a
    registry at a port where there is none. `secure` speaks TLS, asks who calls, and signs leases.
    """

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes, self.folder = processes, folder
        self.authority = Authority(folder)
        self.renew(3600)
        ports = free_ports(11)
        self.registry_port, self.plain_port, self.secure_port, self.lost_port, *ports = ports
        self.no_registry_port, self.first_port, self.second_port, self.leased_port, *ports = ports
        self.xds_port, self.grpc_port, self.zmq_port = ports
        self.registry_url = f"http://127.0.0.1:{self.registry_port}"
        self.plain = f"127.0.0.1:{self.plain_port}"
        self.secure = f"127.0.0.1:{self.secure_port}"
        self.lost = f"127.0.0.1:{self.lost_port}"
        self.first, self.second, self.leased = (
            f"127.0.0.1:{port}" for port in (self.first_port, self.second_port, self.leased_port)
        )
        self.callers, self.audit_log = folder / "callers.toml", folder / "audit.log"
        self.models = folder / "models"
        self.running: dict[str, Process] = {}
        self.wire = ForwarderThread(self.registry_port)

    def renew(self, seconds: float) -> None:
        """A certificate for the proxy `secure` that lasts so long, and began a minute ago."""
        self.pair = self.authority.issue("proxy", valid_to_s=seconds)

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.file))

    def command(self, *arguments: object) -> str:
        run = subprocess.run(
            [*FINGERPOST, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def start(self) -> None:
        for model in ("digits/1", "lonely", "leased"):
            write_python_model(self.models / model, _MODEL, "light:Model", labels=["yes", "no"])
        self.command("caller", "add", "somebody", "--callers", self.callers)
        self.command(
            "keys", "init", "--key", self.folder / "lease.key", "--keys-file", self.folder / "keys"
        )
        (self.folder / "token").write_text(TOKEN)
        (self.folder / "token").chmod(0o600)
        self.start_registry()
        self.start_proxies()
        self.start_first()
        registry = self.registry_url
        self.worker(
            registry, "digits", "--port", self.second_port, "--grpc-port", self.grpc_port,
            "--zmq-port", self.zmq_port, "--max-queue", 2, name="second",
        )  # fmt: skip
        self.worker(f"http://127.0.0.1:{self.wire.port}", "lonely", "--lease", 0, name="lonely")
        self.start_leased()
        for service, count in (("digits", 2), ("lonely", 1), ("leased", 1)):
            self.wait_for(service, count)

    def start_registry(self) -> None:
        self.running["registry"] = self.processes.start("registry", "--port", self.registry_port)
        until_blocking(lambda: get_json(f"{self.registry_url}/v1/status/leader"))

    def start_proxies(self) -> None:
        registry = ("--registry", self.registry_url)
        self.running["plain"] = self.processes.start(
            "proxy", "--port", self.plain_port, "--xds-port", self.xds_port, *registry
        )
        self.running["secure"] = self.processes.start(
            "proxy", "--port", self.secure_port, *registry, "--tls-allow-plain",
            "--tls-cert", self.pair.cert, "--tls-key", self.pair.key,
            "--tls-ca", self.authority.file, "--callers", self.callers,
            "--audit-log", self.audit_log, "--lease-key", self.folder / "lease.key",
        )  # fmt: skip
        self.running["lost"] = self.processes.start(
            "proxy", "--port", self.lost_port,
            "--registry", f"http://127.0.0.1:{self.no_registry_port}",
        )  # fmt: skip

    def start_first(self) -> None:
        self.worker(self.registry_url, "digits", "--port", self.first_port, name="first")

    def start_leased(self) -> None:
        self.worker(
            self.registry_url, "leased", "--port", self.leased_port, "--max-per-client", 6,
            "--require-lease", "--lease-keys", self.folder / "keys", "--lease", 300,
            "--admin-token-file", self.folder / "token", name="leased",
        )  # fmt: skip

    def worker(self, registry: str, model: str, *options: object, name: str) -> None:
        folder = self.models / model
        self.running[name] = self.processes.worker(registry, folder, *options)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self.running.pop(name)
        process.signal(number)
        process.wait()

    def wait_for(self, service: str, count: int) -> list[dict[str, Any]]:
        """The workers of a model, once there are so many; starting takes long on a busy machine."""
        proxy = f"http://{self.plain}"

        def found() -> list[dict[str, Any]] | None:
            workers = self.processes.workers_now(proxy, service)
            return workers if len(workers) == count else None

        return list(until_blocking(found, f"{count} of {service}", within_s=150, every_s=0.2))

    def id_of(self, service: str) -> str:
        (one,) = self.wait_for(service, 1)
        return str(one["id"])

    def deregister(self, id_: str) -> None:
        url = f"{self.registry_url}/v1/agent/service/deregister/{id_}"
        self._put(url, b"")

    def register_bad_entry(self) -> None:
        body = {"ID": "bad", "Name": "digits", "Address": "169.254.169.254", "Port": 80}
        body |= {"Tags": ["fingerpost"]}
        self._put(f"{self.registry_url}/v1/agent/service/register", json.dumps(body).encode())

    def _put(self, url: str, body: bytes) -> None:
        named = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, body, named, method="PUT")  # noqa: S310 - loopback
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310

    def close(self) -> None:
        self.wire.close()


@contextlib.contextmanager
def running_cluster(processes: Processes, folder: Path) -> Iterator[Cluster]:
    """Start it, and end the thread of its wire; `processes` ends the rest."""
    cluster = Cluster(processes, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
