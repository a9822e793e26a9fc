"""A release of the chart on a node: its pods, the address of its proxies, a load of images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.table import Row
from tests.images.engines import ROOT
from tests.kubernetes.node import Node
from tests.support.waiting import until_blocking

__all__ = ["Load", "Release"]


class Release:
    """What `helm install fingerpost` made in a namespace."""

    def __init__(self, node: Node, namespace: str) -> None:
        self.node = node
        self.namespace = namespace

    @property
    def address(self) -> str:
        """The address of the proxies' Service."""
        service = self.node.get("service", "fingerpost-proxy", "-n", self.namespace)
        found: str = service["spec"]["clusterIP"]
        return found

    @property
    def url(self) -> str:
        """The proxies' URL without TLS."""
        return f"http://{self.address}:12480"

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods of a component that are not about to end."""
        label = f"app.kubernetes.io/component={component}"
        found = self.node.get("pods", "-n", self.namespace, "-l", label)["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def ready(self, component: str, count: int) -> bool:
        """Whether so many pods are all that there are, and ready."""
        states = [
            condition["status"]
            for each in self.pods(component)
            for condition in each["status"].get("conditions", ())
            if condition["type"] == "Ready"
        ]
        return states == ["True"] * count

    def until_ready(self, component: str, count: int) -> None:
        until_blocking(
            lambda: self.ready(component, count),
            f"{count} {component}",
            within_s=180,
            every_s=0.5,
        )

    def restarts(self) -> int:
        """How often containers were started again."""
        return sum(
            status["restartCount"]
            for component in ("worker", "proxy")
            for each in self.pods(component)
            for status in each["status"]["containerStatuses"]
        )

    def settle(self, name: str) -> None:
        self.node.kubectl("rollout", "status", name, "-n", self.namespace, "--timeout=180s")

    def remove(self) -> None:
        """Take the namespace away, with all that runs in it."""
        self.node.kubectl("delete", "namespace", self.namespace, "--timeout=180s")


class Load:
    """Images at a fixed rate from a process in the node's network.

    Args:
        before: a command that runs it, such as `unshare`; with the options of `load` after it.
    """

    def __init__(
        self,
        node: Node,
        url: str,
        model: str,
        picture: Path,
        rate: float,
        *options: object,
        before: tuple[object, ...] = (),
    ) -> None:
        command = (
            *(*before, sys.executable, "-m", "tests.kubernetes.load", url, model, picture, rate),
            *options,
        )
        self._process = subprocess.Popen(
            node.inside(*command),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def end(self) -> dict[str, Any]:
        """Stop sending, wait for the answers, and return the counts."""
        self._process.send_signal(signal.SIGTERM)
        out, errors = self._process.communicate(timeout=180)
        assert self._process.returncode == 0, errors[-3000:]
        counts: dict[str, Any] = json.loads(out.splitlines()[-1])
        return counts

    def into(self, row: Row, slowest_s: float) -> None:
        counts = self.end()
        row.count(counts["images"], [text for text, _ in counts["errors"]])
        row.failed = counts["failed"]
        row.at_most("slowest image", counts["slowest_s"], slowest_s, " s")
