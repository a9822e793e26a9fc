"""`fingerpost worker --models`, as an operator starts it, looks at it and stops it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.processes import Processes, get_json
from tests.support.repository import write_version
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.system


def test_a_worker_of_several_models_from_its_start_to_its_drain(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_version(models / "flowers", 1)
    write_version(models / "flowers", 2, broken=True)
    write_version(models / "birds", 7)
    (models / "birds" / "versions.toml").write_text("[aliases]\nstable = 7\n")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    with Processes(tmp_path) as processes:
        registry = processes.registry()
        worker = processes.start(
            "worker", "--models", models, "--registry", registry, "--lease", "0.1",
            "--admin-token-file", token,
        )  # fmt: skip
        passing = f"{registry}/v1/health/service/birds?passing=1"
        until_blocking(lambda: get_json(passing) and get_json(passing.replace("birds", "flowers")))
        status = processes.start("status", "--registry", registry)
        assert status.wait() == 0
        shown = status.output()
        assert "7 (stable)" in shown
        assert "its weights are damaged" in " ".join(shown.split())
        (entry,) = get_json(passing)
        url = f"http://127.0.0.1:{entry['Service']['Port']}"
        assert get_json(f"{url}/v1/admin/models") is None, "that needs the token"
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert get_json(passing) == []
        assert get_json(passing.replace("birds", "flowers")) == []


def test_options_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        for arguments, status, says in (
            ([], 2, "give either --model PATH"),
            (["--model", tmp_path, "--models", tmp_path], 2, "give either --model PATH"),
            (["--models", tmp_path, "--name", "x"], 2, "--name cannot be used"),
            (["--models", tmp_path, "--versions", "newest"], 1, "expected latest:N"),
        ):
            process = processes.start("worker", *arguments)
            assert process.wait() == status
            assert says in " ".join(process.output().split())
