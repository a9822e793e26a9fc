"""`make audit` says clearly what it checked: that nothing was checked is not success."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from tests.support.optional import not_none

AUDIT = Path(__file__).parents[1] / ".ci" / "audit"


@pytest.fixture
def audit(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("audit", str(AUDIT))
    module = module_from_spec(not_none(spec_from_loader("audit", loader)))
    loader.exec_module(module)
    return module


# As pip-audit 2.10 writes them.
FLAW = {"id": "GHSA-1", "fix_versions": ["3.12.1"], "aliases": [], "description": ""}
GOOD = {"name": "rich", "version": "14.0", "vulns": []}
BAD = {"name": "aiohttp", "version": "3.12.0", "vulns": [FLAW]}
SKIPPED = {"name": "own", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ([GOOD], 0, "1 packages checked, 0 known"),
        ([GOOD, BAD], 1, "aiohttp 3.12.0: GHSA-1, fixed in 3.12.1\n2 packages checked, 1 known"),
        ([GOOD, SKIPPED], 0, "so not checked: own\n1 packages checked"),
        ([SKIPPED], 2, "nothing was checked: the advisories know none of"),
        ([], 2, "nothing was checked"),
    ],
)
def test_the_exit_status_says_what_was_found(audit, capsys, found, status, said):
    assert audit.report(found) == status
    out, err = capsys.readouterr()
    assert said in out + err


@pytest.mark.system
def test_without_a_network_nothing_was_checked(tmp_path):
    done = subprocess.run(
        [sys.executable, AUDIT, "--python", sys.executable, "--folder", tmp_path / "audit"],
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done
    assert "nothing was checked: pip-audit cannot be installed" in done.stderr
    assert "needs the network" in done.stderr
