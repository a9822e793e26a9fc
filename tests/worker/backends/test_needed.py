"""Each framework has a row of what it needs, which is what the package's extras bring."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fingerpost.worker.backends.needed import NEEDED
from fingerpost.worker.models.manifest import Framework

_ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("framework", Framework)
def test_an_extra_brings_what_a_framework_needs(framework: Framework) -> None:
    needed = NEEDED[framework]
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    brought = [
        re.split(r"[<>=;\[ ]", each)[0] for each in project["optional-dependencies"][needed.extra]
    ]
    assert set(brought) & {*needed.packages, needed.module}
    assert needed.remedy.startswith(f"pip install 'fingerpost[{needed.extra}]', or take the image")
