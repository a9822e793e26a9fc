"""`fingerpost resolve --watch` beside a cluster whose processes come, change, die and return."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Process, Processes, get_json
from tests.support.waiting import until_blocking


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    folder = tmp_path / "logs"
    folder.mkdir()
    with Processes(folder) as processes:
        yield processes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with version 1 of a model that costs nothing to load."""
    folder = tmp_path / "models" / "gray" / "1"
    folder.mkdir(parents=True)
    (folder / "labels.txt").write_text("dark\nlight\n")
    (folder / "model.toml").write_text(
        'framework = "python"\nclass = "gray:Gray"\n[input]\nheight = 8\nwidth = 8\n'
    )
    (folder / "gray.py").write_text(
        "import numpy as np\n"
        "class Gray:\n"
        "    def __init__(self, folder):\n"
        "        pass\n"
        "    def predict(self, batch):\n"
        "        light = batch.mean(axis=(1, 2, 3)) / 255\n"
        "        return np.stack([1 - light, light], axis=1)\n"
    )
    return folder.parent


def events(watch: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in watch.output().splitlines(keepends=True) if "\n" in line]


def start(processes: Processes, *arguments: object) -> tuple[Process, str]:
    """A registry or proxy on a port that it can be started on again."""
    *rest, port = arguments
    process = processes.start(*rest, "--port", port)
    url = f"http://127.0.0.1:{port}"
    ready = "/v1/status/leader" if arguments[0] == "registry" else "/health/ready"
    until_blocking(lambda: get_json(url + ready))
    return process, url


def test_each_change_is_a_line(processes: Processes, model: Path) -> None:
    registry = processes.registry()
    port = free_port()
    proxy, url = start(processes, "proxy", "--registry", registry, port)
    watch = processes.start("resolve", "gray", "--watch", "--json", "--proxy", url)
    empty = until_blocking(lambda: events(watch))[0]
    assert empty["message"] == "no healthy worker serves gray now"

    worker = processes.worker(registry, model, "--weight", 3, "--lease", 0)
    first = until_blocking(lambda: events(watch)[1:])[0]
    assert first["event"] == "joined"
    assert (first["worker"]["weight"], first["worker"]["versions"]) == (3, ["1"])
    assert first["age_s"] < 30
    assert first["index"] >= 1

    other = processes.worker(registry, model, "--lease", 0)
    second = until_blocking(lambda: events(watch)[2:])[0]
    assert second["event"] == "joined"
    assert second["worker"]["id"] != first["worker"]["id"]

    shutil.copytree(model / "1", model.parent / "next")
    (model.parent / "next").rename(model / "2")
    changed = until_blocking(lambda: events(watch)[4:] and events(watch)[3:5])
    assert [each["event"] for each in changed] == ["changed", "changed"]
    assert changed[0]["changes"] == {"versions": [["1"], ["2"]]}

    other.signal(signal.SIGTERM)
    left = until_blocking(lambda: events(watch)[5:])[0]
    assert (left["event"], left["worker"]["id"]) == ("left", second["worker"]["id"])
    assert left["index"] > second["index"]

    proxy.signal(signal.SIGKILL)
    away = until_blocking(lambda: events(watch)[6:])[0]
    assert away["event"] == "unreachable"
    assert "no proxy answered" in away["message"]
    worker.signal(signal.SIGTERM)  # unseen
    assert worker.wait() == 0
    start(processes, "proxy", "--registry", registry, port)
    told = until_blocking(lambda: events(watch)[9:] and events(watch)[7:])
    assert sorted(each["event"] for each in told) == ["back", "empty", "left"]

    watch.signal(signal.SIGINT)
    assert watch.wait() == 0
    assert len(events(watch)) == 10


def test_an_outage_of_the_registry_is_survived(processes: Processes, model: Path) -> None:
    port = free_port()
    registry, url = start(processes, "registry", port)
    worker = processes.worker(url, model)
    until_blocking(lambda: get_json(f"{url}/v1/health/service/gray?passing"))
    watch = processes.start("resolve", "gray", "--watch", "--registry", url)
    until_blocking(lambda: "joined" in watch.output())
    assert "weight 1" in watch.output()

    registry.signal(signal.SIGKILL)
    until_blocking(lambda: "unreachable" in watch.output())
    start(processes, "registry", port)
    until_blocking(lambda: "  back  " in watch.output())
    worker.signal(signal.SIGTERM)
    until_blocking(lambda: "  left  " in watch.output())

    watch.signal(signal.SIGINT)
    assert watch.wait() == 0
    told = [line.split()[1] for line in watch.output().splitlines()]
    # The new registry knows nothing at first; the worker answers for itself and registers again.
    assert [each for each in told if each != "changed"] == [
        "joined", "unreachable", "back", "left", "empty",
    ]  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gray", "--registry", "http://127.0.0.1:9"], "cannot be reached"),
        (["Gray!"], "is not a valid service name"),
        (["gray", "--consul", "--proxy", "http://127.0.0.1:9"], "exclude each other"),
    ],
)
def test_what_cannot_start_says_so_in_one_line(arguments: list[str], told: str) -> None:
    done = subprocess.run(
        [*FINGERPOST, "resolve", "--watch", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
