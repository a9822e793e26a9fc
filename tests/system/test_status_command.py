"""`fingerpost status` and `drain` beside a cluster that changes, and a proxy that dies."""

from __future__ import annotations

import json
import signal
import subprocess

from tests.support.digits import Digits
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes
from tests.support.waiting import until_blocking


def run(*arguments: str) -> str:
    done = subprocess.run(
        [*FINGERPOST, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_a_watch_survives_its_proxy_and_shows_what_is_drained(
    processes: Processes, digits: Digits
) -> None:
    registry = processes.registry()
    port = free_port()
    first = processes.start("proxy", "--port", port, "--registry", registry)
    proxy = f"http://127.0.0.1:{port}"
    processes.worker(registry, digits.model)
    (worker,) = processes.workers(proxy, 1)
    with subprocess.Popen(
        [*FINGERPOST, "status", "--watch", "--json", "--interval", "0.2", "--proxy", proxy],
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None

        def until(wanted: str) -> None:
            assert watch.stdout is not None
            for line in watch.stdout:
                update = json.loads(line)
                if "error" in update:
                    seen = update["error"]["code"]
                else:
                    (service,) = update
                    seen = "drained" if service["withdrawn"] == [worker["id"]] else "well"
                    assert seen == "drained" or service["workers"][0]["id"] == worker["id"]
                if seen == wanted:
                    return
            raise AssertionError(f"the watch ended before {wanted}")

        until("well")
        run("drain", worker["address"], "--registry", registry)
        until("drained")
        table = run("status", "--proxy", proxy)
        assert worker["id"] in table
        assert "drained, or not well" in table
        assert worker["id"] in run("status", "--registry", registry)
        run("undrain", worker["address"], "--registry", registry)
        until("well")
        first.signal(signal.SIGKILL)
        until("registry_unreachable")
        processes.start("proxy", "--port", port, "--registry", registry)
        until("well")
        assert watch.poll() is None
        watch.send_signal(signal.SIGINT)
        until_blocking(lambda: watch.poll() == 0)
