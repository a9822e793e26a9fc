"""Prometheus and Alertmanager with the configuration of deploy/monitoring, hurried up."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.support.ports import free_ports
from tests.support.processes import Processes
from tests.support.waiting import until_blocking

__all__ = ["MONITORING", "Stack", "program", "running_stack"]

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"

# What a test has no time for. Metrics are scraped and rules evaluated every second, not every 15.
_WINDOWS = {"5m": "10s", "10m": "10s", "15m": "10s", "6h": "10m"}
_FOR = "1s"
_EVERY = "1s"
# A quiet registry confirms a list every 21 s, so that less than that is no outage.
_AGES = {
    "snapshot_age_seconds) > 60": "snapshot_age_seconds) > 24",
    "process_start_time_seconds < 900": "process_start_time_seconds < 10",
}


def program(name: str) -> str:
    """Path of a program of Prometheus. Where none can be had the test fails."""
    fetch = ROOT / "tests" / "support" / "get-prometheus"
    run = subprocess.run([fetch, name], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
        return json.load(answer)


class Stack:
    """The two servers, and what Alertmanager has sent.

    Attributes:
        sent: for each receiver the pairs of an alert's name and its status, `firing` or `resolved`.
    """

    def __init__(self, prometheus: str, alertmanager: str) -> None:
        self._prometheus = prometheus
        self._alertmanager = alertmanager
        self.sent: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self.begun = time.time()

    def query(self, expression: str, *, since: float | None = None) -> list[dict[str, Any]]:
        """The series of an expression now; with `since` all of a range, with a step of 1 s."""
        path, arguments = "query", {"query": expression}
        if since is not None:
            path = "query_range"
            arguments |= {"start": str(since), "end": str(time.time()), "step": "1"}
        url = f"{self._prometheus}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            return list(_get(url)["data"]["result"])
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error

    def targets(self) -> dict[str, str]:
        """The state of each target, by its address."""
        found = _get(f"{self._prometheus}/api/v1/targets")["data"]["activeTargets"]
        return {each["labels"]["instance"]: each["health"] for each in found}

    def firing(self) -> dict[str, dict[str, str]]:
        """The labels of each alert that Alertmanager has, by its name."""
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            alerts = _get(f"{self._alertmanager}/api/v2/alerts")
            return {each["labels"]["alertname"]: each["labels"] for each in alerts}
        return {}


@contextlib.contextmanager
def running_stack(
    processes: Processes,
    folder: Path,
    *,
    proxies: list[str],
    more: list[dict[str, Any]],
    left_out: list[str],
    ca: Path,
) -> Iterator[Stack]:
    """Start both, with the project's configuration.

    Args:
        processes: starts them, and ends them with the others.
        folder: for files.
        proxies: addresses of the two in place of those in `prometheus.yml`.
        more: further entries of `scrape_configs`.
        left_out: addresses of workers that are scraped by those, and not as proxies name them.
        ca: the authority of targets that speak TLS.
    """
    prometheus, alertmanager, gossip, receiver = free_ports(4)
    alertmanager_file = program("prometheus-alertmanager")
    stack = Stack(f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}")
    _write_prometheus(folder, proxies, (more, left_out), alertmanager, ca)
    _write_alertmanager(folder, receiver)
    with _receiver(stack, receiver):
        processes.start(
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{alertmanager}",
            f"--cluster.listen-address=127.0.0.1:{gossip}",
            "--cluster.advertise-address=127.0.0.1:1",
            # That of the cache finds its templates only from there.
            program=("env", "-C", str(Path(alertmanager_file).parent), alertmanager_file),
        )
        processes.start(
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{prometheus}",
            "--rules.alert.resend-delay=1s",
            program=(program("prometheus"),),
        )

        def answers() -> bool:
            try:
                return bool(_get(f"http://127.0.0.1:{prometheus}/api/v1/query?query=1"))
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        until_blocking(answers, "Prometheus answers", within_s=60)
        yield stack


def _write_prometheus(
    folder: Path,
    proxies: list[str],
    scraping: tuple[list[dict[str, Any]], list[str]],
    alertmanager: int,
    ca: Path,
) -> None:
    more, left_out = scraping
    text = (MONITORING / "prometheus.yml").read_text("utf-8")
    for number, proxy in enumerate(proxies, 1):
        text = text.replace(f"proxy-{number}:12480", proxy)
    config = yaml.safe_load(text)
    config["global"] = {"scrape_interval": _EVERY, "evaluation_interval": _EVERY}
    config["alerting"]["alertmanagers"][0]["static_configs"] = [
        {"targets": [f"127.0.0.1:{alertmanager}"]}
    ]
    workers, _ = config["scrape_configs"]
    drop = {"source_labels": ["__address__"], "regex": "|".join(left_out), "action": "drop"}
    workers["relabel_configs"].append(drop)
    for each in workers["http_sd_configs"]:
        each["refresh_interval"] = "1s"
    for each in (*config["scrape_configs"], *more):
        each["tls_config"] = {"ca_file": str(ca)}
    config["scrape_configs"] += more
    (folder / "rules").mkdir()
    for name in config["rule_files"]:
        (folder / name).write_text(_hurried((MONITORING / name).read_text("utf-8")))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))


def _hurried(rules: str) -> str:
    """The rules with short windows, and without patience."""
    for old, new in _AGES.items():
        rules = rules.replace(old, new)
    rules = re.sub(r"\[(\w+)\]", lambda found: f"[{_WINDOWS[found[1]]}]", rules)
    return re.sub(r"^( +)for: .*$", rf"\1for: {_FOR}", rules, flags=re.MULTILINE)


def _write_alertmanager(folder: Path, receiver: int) -> None:
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text("utf-8"))
    config["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    for each in config["receivers"]:
        (hook,) = each["webhook_configs"]
        hook["url"] = hook["url"].replace(":9095/", f":{receiver}/")
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))


@contextlib.contextmanager
def _receiver(stack: Stack, port: int) -> Iterator[None]:
    """Takes what Alertmanager sends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent = stack.sent[self.path.strip("/")]
            sent |= {(each["labels"]["alertname"], each["status"]) for each in body["alerts"]}
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
