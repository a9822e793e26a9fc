"""What `fingerpost status` shows on terminals of any width."""

from __future__ import annotations

import io
import time

import pytest

from fingerpost.client.proxy_answers import Unlisted
from fingerpost.deploy.commands import status
from fingerpost.deploy.console import SafeConsole
from fingerpost.errors import RegistryUnreachable
from fingerpost.registry import Instance, LoadReport, ModelInfo, Snapshot
from fingerpost.registry.load import WorkerState

LONG = "digits-127-0-0-1-40845-0123456789abcdef"
DRAINED = "digits-127-0-0-1-40846-0123456789abcdef"


def view() -> status._ClusterView:
    instance = Instance(
        id=LONG,
        service="digits",
        host="127.0.0.1",
        ports={"http": 40845},
        models=(ModelInfo(name="digits", versions=("3",)),),
        meta={"device": "cpu"},
    )
    now = time.monotonic()
    digits = Snapshot(service="digits", instances=(instance,), known=True, index=1, taken_at=now)
    empty = Snapshot(service="flowers", instances=(), known=True, index=1, taken_at=now)
    return status._ClusterView(
        snapshots=[digits, empty],
        unlisted={
            "digits": Unlisted(),
            "flowers": Unlisted(withdrawn=(DRAINED,)),
        },
        loads={LONG: LoadReport(slots=8, rif=7, state=WorkerState.READY, boot_id=1, seq=1)},
        at=now,
    )


def shown(width: int, error: RegistryUnreachable | None = None) -> list[str]:
    file = io.StringIO()
    console = SafeConsole(file=file, width=width, soft_wrap=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(status, "out", console)
        console.print(view().rendered(error))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 200, 1000])
def test_ids_are_whole_at_every_width(width: int) -> None:
    text = "\n".join(shown(width))
    for needed in (LONG, DRAINED, "127.0.0.1:40845", "drained, or not well", "none healthy", "7"):
        assert needed in text, text
    assert max(map(len, text.splitlines())) <= width


def test_a_wide_terminal_gets_a_table_and_a_narrow_one_lists() -> None:
    assert shown(1000)[0].split() == [
        "SERVICE", "WORKER", "VERSION", "STATE", "IN", "FLIGHT", "QUEUED", "MB", "AGE", "DEVICE",
        "ID",
    ]  # fmt: skip
    assert len(shown(1000)) == 4
    assert shown(80)[:3] == [
        "digits  127.0.0.1:40845",
        "  ready, version 3, 7 in flight, 0.0 MB queued, 0 s, cpu",
        f"  {LONG}",
    ]


def test_an_outage_is_said_above_what_was_known() -> None:
    first, *rest = shown(200, RegistryUnreachable("no proxy answered"))
    assert "this is the last: no proxy answered" in first
    assert LONG in "\n".join(rest)
