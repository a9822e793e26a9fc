"""Files of a node in a folder; `make test-machines` does the same on machines with systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.join_command import Systemctl

from fingerpost.deploy.join.node import Node
from fingerpost.deploy.join.plan import UNIT, JoinPlan
from fingerpost.errors import ConfigurationError

pytestmark = pytest.mark.shell


@pytest.fixture
def systemctl() -> Systemctl:
    return Systemctl()


@pytest.fixture
def node(tmp_path: Path, systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch) -> Node:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return Node(tmp_path, systemctl)


def plan(value: str = "t", zone: str = "a") -> JoinPlan:
    return JoinPlan.make(
        registry="consul://127.0.0.1:8500",
        models=Path("/srv/models"),
        command=Path("/opt/fingerpost/bin/fingerpost"),
        options=["--zone", zone],
        credentials={"registry-token": value},
    )


def test_a_second_run_changes_nothing_and_another_what_differs(node: Node, tmp_path: Path) -> None:
    node.check(plan())
    node.write(node.changes(plan()))
    assert node.changes(plan()) == []
    token = tmp_path / "etc/fingerpost/credentials/worker/registry-token"
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("t", 0o600)
    node.check(plan("new", "b"))
    changed = [each.path.name for each in node.changes(plan("new", "b"))]
    assert changed == ["registry-token", "worker.env"]


def test_undo_removes_what_was_written_and_nothing_else(
    node: Node, systemctl: Systemctl, tmp_path: Path
) -> None:
    node.write(node.changes(plan()))
    others = tmp_path / "etc/fingerpost/credentials/worker/tls-key", tmp_path / "srv/models/x"
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    gone = node.undo()
    assert [each.name for each in gone] == [
        "registry-token", UNIT, "fingerpost.env", "worker.env"
    ]  # fmt: skip
    assert systemctl.calls == [f"disable --now --quiet {UNIT}", "daemon-reload"]
    assert all(path.read_text() == "mine" for path in others)
    assert node.undo() == []
    assert len(systemctl.calls) == 2


@pytest.mark.parametrize("name", [f"systemd/system/{UNIT}", "fingerpost/worker.env"])
def test_files_of_somebody_else_stay(node: Node, tmp_path: Path, name: str) -> None:
    path = tmp_path / "etc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine\n")
    with pytest.raises(ConfigurationError, match="has not written it: move it away"):
        node.check(plan())
    assert path not in node.undo()
    assert path.read_text() == "mine\n"


def test_a_credential_of_somebody_else_stays(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "etc/fingerpost/credentials/worker/registry-token"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="registry-token exists"):
        node.check(plan())


def test_it_is_restarted_only_where_something_changed(node: Node, systemctl: Systemctl) -> None:
    node.start(changed=False)
    node.start(changed=True)
    starts = [each for each in systemctl.calls if "start" in each]
    assert starts == [f"start --no-block {UNIT}", f"restart --no-block {UNIT}"]


def test_a_start_that_fails_or_takes_too_long(node: Node, systemctl: Systemctl) -> None:
    node.wait_started(1.0, print)
    systemctl.properties["ActiveState"] = "failed"
    with pytest.raises(ConfigurationError, match="do not start: "):
        node.wait_started(1.0, print)
    systemctl.properties |= {"ActiveState": "activating", "StatusText": "waiting for the registry"}
    seen: list[str] = []
    with pytest.raises(ConfigurationError, match=r"after 0 s \(waiting for the registry\)"):
        node.wait_started(0.0, seen.append)
    assert seen == ["waiting for the registry"]


def test_without_systemd_or_rights_nothing_is_done(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ConfigurationError, match="run it as root"):
        node.check(plan())
    (tmp_path / "run/systemd/system").rmdir()
    with pytest.raises(ConfigurationError, match="systemd does not run this machine"):
        node.check(plan())
    assert not (tmp_path / "etc").exists()
