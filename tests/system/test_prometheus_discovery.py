"""A real Prometheus finds the workers through the proxy, with the configuration in the docs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.digits import Digits
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.waiting import until_blocking

_ROOT = Path(__file__).parents[2]
_GET_PROMETHEUS = _ROOT / "tests" / "support" / "get-prometheus"

# The path and the arguments of a request to Prometheus' HTTP API, and the data of its answer.
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def prometheus_binary() -> str:
    """Path of a `prometheus`. Where none can be had the test fails; it is never skipped."""
    run = subprocess.run([_GET_PROMETHEUS], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(run.stderr)
    return run.stdout.strip()


@pytest.fixture
def proxy_port() -> int:
    return free_port()


@pytest.fixture
def ask(prometheus_binary: str, proxy_port: int, tmp_path: Path) -> Iterator[Ask]:
    """A running Prometheus with the documentation's configuration; asks its HTTP API."""
    text = (_ROOT / "docs" / "observability.md").read_text("utf-8")
    documented = re.search(r"```yaml\n(scrape_configs:.*?)```", text, re.DOTALL)
    assert documented is not None
    config = documented[1].replace("proxy-1:12480, proxy-2:12480", f"127.0.0.1:{proxy_port}")
    config = config.replace("proxy-1:12480", f"127.0.0.1:{proxy_port}")
    assert "refresh_interval: 10s" in config
    config = config.replace("refresh_interval: 10s", "refresh_interval: 1s")
    assert "proxy-" not in config.replace("fingerpost-proxies", "")
    file = tmp_path / "prometheus.yml"
    file.write_text(f"global:\n  scrape_interval: 1s\n{config}")
    port = free_port()
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                prometheus_binary,
                f"--config.file={file}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )

    def ask(path: str, **arguments: str) -> Any:
        query = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/api/v1/{path}?{query}", timeout=5
            ) as answer:
                return json.load(answer)["data"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, (tmp_path / "prometheus.log").read_text("utf-8")
            return None

    yield ask
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_workers_are_scraped_as_they_come_and_go(
    ask: Ask, proxy_port: int, processes: Processes, digits: Digits
) -> None:
    def targets() -> dict[str, str]:
        """The address and the zone of each worker that is scraped successfully."""
        found = ask("targets", state="active") or {"activeTargets": []}
        return {
            each["labels"]["instance"]: each["labels"].get("zone", "")
            for each in found["activeTargets"]
            if each["labels"]["job"] == "fingerpost-workers" and each["health"] == "up"
        }

    registry = processes.registry()
    processes.start("proxy", "--port", proxy_port, "--registry", registry)
    first = processes.worker(registry, digits.model, "--zone", "rack-1")
    proxy = f"http://127.0.0.1:{proxy_port}"
    (one,) = processes.workers(proxy, 1)
    until_blocking(lambda: targets() == {one["address"]: "rack-1"})
    processes.worker(registry, digits.model)
    both = {each["address"] for each in processes.workers(proxy, 2)}
    until_blocking(lambda: set(targets()) == both)

    # What it scrapes are the workers' figures, and the proxy's, which is named by its address.
    def up() -> dict[str, str]:
        found = ask("query", query="up") or {"result": []}
        return {each["metric"]["instance"]: each["value"][1] for each in found["result"]}

    until_blocking(lambda: up() == dict.fromkeys([*both, f"127.0.0.1:{proxy_port}"], "1"))
    query = "count by (job) (fingerpost_build_info)"
    until_blocking(
        lambda: (
            {
                each["metric"]["job"]: each["value"][1]
                for each in (ask("query", query=query) or {"result": []})["result"]
            }
            == {"fingerpost-workers": "2", "fingerpost-proxies": "1"}
        )
    )
    first.signal(signal.SIGTERM)
    until_blocking(lambda: set(targets()) == both - {one["address"]})
