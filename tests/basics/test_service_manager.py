"""What a service tells systemd, through a real socket."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.notifications import Notifications
from tests.support.waiting import until

from fingerpost.basics.service_manager import ServiceManager

pytestmark = pytest.mark.shell


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Notifications]:
    with Notifications(tmp_path, watchdog_s=0.06) as systemd:
        yield systemd


def test_it_is_told_of_the_life_of_a_service(systemd: Notifications) -> None:
    environ = {**systemd.environment, "HOME": "/root"}
    manager = ServiceManager.take(environ)
    assert environ == {"HOME": "/root"}, "child processes do not speak for this one"
    manager.status("loading")
    manager.status("loading")  # which it knows
    manager.ready("serving flowers@3")
    manager.status("serving flowers@3")
    manager.stopping("draining")
    assert systemd.received() == [
        "STATUS=loading",
        *("READY=1", "STATUS=serving flowers@3"),
        *("STOPPING=1", "STATUS=draining"),
    ]


def test_a_successor_is_named_and_speaks_from_then_on(systemd: Notifications) -> None:
    old = ServiceManager.take(dict(systemd.environment))
    old.reloading()
    new = ServiceManager.take(dict(old.environment))
    old.succeeded_by(1234)
    old.stopping("closing connections")  # of a process that is not the service any more
    new.status("12 workers")
    first, stamp, *others = systemd.received()
    assert first == "RELOADING=1"
    assert stamp.startswith("MONOTONIC_USEC=")
    assert others == ["MAINPID=1234", "READY=1", "STATUS=12 workers"]
    assert new.watchdog_s == 0.06


async def test_the_watchdog_is_fed_while_the_engine_works(systemd: Notifications) -> None:
    manager = ServiceManager.take(dict(systemd.environment))
    healthy, status = True, "serving"
    async with manager.informed(lambda: status, lambda: healthy):
        await until(lambda: systemd.count("WATCHDOG=1") >= 3)
        healthy, status = False, "stalled"
        await until(lambda: systemd.status() == "stalled")
        fed = systemd.count("WATCHDOG=1")
        status = "still stalled"
        await until(lambda: systemd.status() == "still stalled")
        assert systemd.count("WATCHDOG=1") == fed
        healthy = True
        await until(lambda: systemd.count("WATCHDOG=1") > fed)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("more", "watchdog_s"),
    [
        ({"WATCHDOG_PID": str(os.getpid())}, 0.06),
        ({"WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
    ids=["of this process", "of another process", "off", "not a number"],
)
def test_whose_watchdog_it_is(
    systemd: Notifications, more: dict[str, str], watchdog_s: float | None
) -> None:
    assert ServiceManager.take({**systemd.environment, **more}).watchdog_s == watchdog_s


def test_a_status_is_one_line(systemd: Notifications) -> None:
    ServiceManager.take(dict(systemd.environment)).status("model\nREADY=1" + "x" * 9000)
    (line,) = systemd.received()
    assert line.startswith(r"STATUS=model\nREADY=1xxx")
    assert len(line) < 600


@pytest.mark.parametrize("address", ["relative/path", "", "/nowhere/notify", None])
async def test_without_a_socket_nothing_is_disturbed(
    address: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    manager = ServiceManager.take({} if address is None else {"NOTIFY_SOCKET": address})
    async with manager.informed(lambda: "serving", lambda: True):
        manager.ready("serving")
        manager.ready("serving")
    assert len(caplog.records) == (address is not None)
