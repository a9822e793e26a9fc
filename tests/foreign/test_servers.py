"""Real servers of others, kept in the registry by `fingerpost register`: `make test-foreign`.

The answer to an image of one colour is that colour, by every protocol.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.foreign.environments import environment
from tests.support.colours import LABELS, encoded
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.waiting import until_blocking

from fingerpost.client import Client
from fingerpost.errors import FingerpostError, ImageError

SERVERS = Path(__file__).parent / "servers"
pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


class Place:
    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.sidecars: list[Process] = []
        self.folder = folder
        self.registry = processes.registry()
        self.proxy = processes.proxy(self.registry)

    def register(self, port: int, *arguments: object) -> Process:
        common = ("--registry", self.registry, "--service", "colours", "--port", port)
        sidecar = self.processes.start("register", *common, "--lease", 0.5, *arguments)
        self.sidecars.append(sidecar)
        return sidecar

    def wait(self, count: int, sidecar: Process) -> None:
        def there() -> bool:
            assert sidecar._popen.poll() is None, sidecar.output()
            return len(self.processes.workers_now(self.proxy, "colours")) == count

        until_blocking(there, within_s=180)

    def answers(self) -> None:
        """All colours are right, also at once; bad input is typed."""

        async def ask() -> None:
            async with Client(self.proxy) as client:
                for form in ("PNG", "JPEG"):
                    for colour in LABELS:
                        result = await client.classify(encoded(colour, form=form), "colours")
                        assert result.label == colour, result
                        assert sum(each.score for each in result.predictions) > 0.99
                images = [encoded(LABELS[n % 3]) for n in range(60)]
                results = client.stream(images, "colours", concurrency=4, ordered=True)
                labels = [str(each.error or each.label) async for each in results]
                assert labels == [LABELS[n % 3] for n in range(60)]
                with pytest.raises(FingerpostError) as bad:
                    await client.classify(b"this is not an image", "colours", timeout_s=20)
                print("bad image:", type(bad.value).__name__, bad.value.message[:150])

        asyncio.run(ask())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Processes(tmp_path) as processes:
        place = Place(processes, tmp_path)
        yield place
        for sidecar in place.sidecars:  # a killed one leaves its server
            sidecar.signal(signal.SIGTERM)
            sidecar.wait(60)


def test_flask(place):
    python = environment("flask") / "python"
    ports = [free_port() for _ in range(3)]
    sidecars = [
        place.register(port, "--check", "http:/ping", "--", python, SERVERS / "flask_app.py", port)
        for port in ports
    ]
    place.wait(3, sidecars[0])
    place.answers()

    async def kill_one() -> None:
        async with Client(place.proxy) as client:
            count = 0
            async for result in client.stream([encoded("red")] * 400, "colours", concurrency=6):
                assert result.error is None, result
                count += 1
                if count == 100:
                    os.kill(_listener(ports[0]), 9)
            assert count == 400

    asyncio.run(kill_one())
    image = place.folder / "image.png"
    image.write_bytes(encoded("blue"))
    line = f'curl -sf -F data=@{image} "$(curl -s {place.proxy})"'
    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout)
    assert max(found, key=found.get) == "blue"

    async def refused() -> None:
        async with Client(place.proxy) as client:
            with pytest.raises(ImageError, match="HTTP 415"):
                await client.classify(b"text", "colours")

    asyncio.run(refused())


def test_mosec(place):
    python, port = environment("mosec") / "python", free_port()
    server = (python, SERVERS / "mosec_app.py", "--port", port, "--address", "127.0.0.1")
    meta = ("--protocol", "torchserve", "--meta", "path=/inference", "--check", "http:/")
    load = ("--load", "/metrics#mosec_service_remaining_task")
    sidecar = place.register(port, *meta, *load, "--", *server)
    place.wait(1, sidecar)
    place.answers()
    assert "load is not known" not in sidecar.output(), sidecar.output()


def test_mlserver(place):
    binary, port = environment("mlserver"), free_port()
    folder = place.folder / "mlserver"
    folder.mkdir()
    (folder / "settings.json").write_text(
        json.dumps({"http_port": port, "host": "127.0.0.1", "grpc_port": free_port(),
                    "metrics_port": free_port(), "parallel_workers": 0})
    )  # fmt: skip
    model = {"name": "colours", "implementation": "mlserver_model.Colours"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    meta = ("size=8x8", "input=pixels", "labels=red,green,blue")
    pairs = [each for pair in meta for each in ("--meta", pair)]
    server = ("env", f"PYTHONPATH={SERVERS}", binary / "mlserver", "start", folder)
    check = ("--protocol", "v2", "--check", "http:/v2/health/ready")
    place.wait(1, place.register(port, *check, *pairs, "--", *server))
    place.answers()


def test_kserve(place):
    python, port = environment("kserve") / "python", free_port()
    meta = ("size=8x8", "layout=NCHW", "scale=1/255", "labels=red,green,blue")
    pairs = [each for pair in meta for each in ("--meta", pair)]
    server = (python, SERVERS / "kserve_model.py", port)
    check = ("--protocol", "v2", "--check", "http:/v2/health/ready")
    place.wait(1, place.register(port, *check, *pairs, "--", *server))
    place.answers()


def test_torchserve(place):
    """Three of them; one is killed, and no image is lost."""
    binary = environment("torchserve")
    # TorchServe's workers import torch, which the project's own environment has.
    (next((binary.parent / "lib").glob("python*/site-packages")) / "torch.pth").write_text(
        "\n".join(each for each in sys.path if each.endswith("site-packages"))
    )
    store = place.folder / "store"
    store.mkdir()
    archive = ("--model-name", "colours", "--version", "1.0", "--export-path", store)
    handler = ("--handler", SERVERS / "torchserve_handler.py")
    subprocess.run([binary / "torch-model-archiver", *archive, *handler], check=True)
    ports, sidecars = [], []
    for number in range(3):
        port = free_port()
        settings = place.folder / f"{number}.properties"
        settings.write_text(
            f"inference_address=http://127.0.0.1:{port}\n"
            f"management_address=http://127.0.0.1:{free_port()}\n"
            f"metrics_address=http://127.0.0.1:{free_port()}\n"
            f"grpc_inference_port={free_port()}\ngrpc_management_port={free_port()}\n"
            "default_workers_per_model=1\ndisable_token_authorization=true\n"
        )
        server = ("env", f"PATH={binary}:{os.environ['PATH']}", f"TEMP={place.folder}/{number}",
                  f"LOG_LOCATION={place.folder}", f"METRICS_LOCATION={place.folder}",
                  binary / "torchserve", "--foreground", "--model-store", store,
                  "--models", "colours=colours.mar", "--ts-config", settings,
                  "--disable-token-auth")  # fmt: skip
        (place.folder / str(number)).mkdir()
        sidecars.append(
            place.register(port, "--protocol", "torchserve", "--check", "http:/ping", "--", *server)
        )
        ports.append(port)
    place.wait(3, sidecars[0])
    place.answers()

    async def kill_one() -> None:
        async with Client(place.proxy) as client:
            count = 0
            async for result in client.stream([encoded("red")] * 200, "colours", concurrency=4):
                assert result.error is None, result
                count += 1
                if count == 50:
                    os.kill(_listener(ports[0]), 9)
            assert count == 200

    asyncio.run(kill_one())


def _listener(port: int) -> int:
    """The process that listens at a port."""
    import psutil

    for each in psutil.net_connections("tcp"):
        if each.status == "LISTEN" and each.laddr and each.laddr[1] == port and each.pid:
            return each.pid
    raise AssertionError(f"nobody listens at {port}")
