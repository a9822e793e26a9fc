"""docs/first-cluster/docker.md, step by step, on Docker's engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.images.conftest import hand_over, image_here
from tests.images.engines import ROOT, Docker, Podman
from tests.support.walks import walk

pytestmark = pytest.mark.system


def test_the_page_is_true(built: Podman, tmp_path: Path) -> None:
    engine, checkout = tmp_path / "docker", tmp_path / "checkout"
    for part in ("docker", "monitoring"):
        shutil.copytree(ROOT / "deploy" / part, checkout / "deploy" / part)
    engine.mkdir()
    for folder in (tmp_path.parent.parent, tmp_path.parent, tmp_path, checkout):
        folder.chmod(0o755)  # containers have a user of their own
    with Docker(engine).running() as docker:
        settings = hand_over(built, docker)
        for target in ("core", "onnx"):
            docker("tag", image_here(target), f"fingerpost:{target}")
        with docker.shell(checkout, **settings) as shell:
            seconds = walk(ROOT / "docs/first-cluster/docker.md", shell)
        assert not docker("ps", "-aq").stdout, "the last step takes everything away"
    print(f"one Docker host: the whole page in {seconds:.0f} s")
