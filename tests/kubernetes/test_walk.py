"""docs/first-cluster/kubernetes.md, step by step, on a whole node."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.kubernetes.conftest import ROOT
from tests.kubernetes.node import Node
from tests.support.walks import Shell, walk

pytestmark = pytest.mark.system

PAGE = ROOT / "docs/first-cluster/kubernetes.md"


def test_the_page_is_true(node: Node, tools: Path, tmp_path: Path) -> None:
    """The node has the images that the page names; `prom/prometheus` holds Debian's Prometheus."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "deploy").symlink_to(ROOT / "deploy")
    shutil.copy(node.kubeconfig, tmp_path / "kubeconfig")  # of which the page changes the context
    programs = (tools, Path(sys.executable).parent)
    environment = {
        "PATH": ":".join([*(str(each) for each in programs), os.environ["PATH"]]),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "HOME": str(tmp_path),
    }
    with Shell(node.inside("bash"), folder=checkout, environment=environment) as shell:
        seconds = walk(PAGE, shell, within_s=400)
    left = [each["metadata"]["name"] for each in node.get("namespaces")["items"]]
    assert "vision" not in left, "the last step takes everything away"
    print(f"Kubernetes: the whole page in {seconds:.0f} s")
