"""The audit log on real files: what a line has, rotation, a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import Counter
from tests.support.waiting import until_blocking

from fingerpost.errors import ConfigurationError
from fingerpost.security.audit.audit_log import AuditLog
from fingerpost.security.caller import Caller

pytestmark = pytest.mark.shell

ANNA = Caller(identity="anna", tenant="shop", role="operate")


@pytest.fixture
def dropped() -> Counter:
    return Counter("dropped", "dropped", registry=None)


def count(counter: Counter) -> float:
    return next(iter(counter.collect())).samples[0].value


def lines(*files: Path) -> list[dict[str, str]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_an_order_and_a_refusal(tmp_path: Path, dropped: Counter) -> None:
    file = tmp_path / "audit.log"
    log = AuditLog(str(file), dropped=dropped)
    log.write("rollback", "flowers", "done", caller=ANNA, source="10.0.0.7")
    log.write("load", 'x"}\n{"who":"root\u2028\x1b[2J', "refused", detail="y" * 1000)
    log.close()
    first, second = lines(file)
    assert first.pop("time")
    assert first == {
        "who": "anna",
        "tenant": "shop",
        "role": "operate",
        "from": "10.0.0.7",
        "action": "rollback",
        "target": "flowers",
        "result": "done",
        "detail": "",
    }
    assert second["target"] == r'x"}\n{"who":"root\u2028\x1b[2J'
    assert second["who"] == second["tenant"] == ""
    assert len(second["detail"]) < 350
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_flood_writes_bounded_lines_and_the_number_of_the_others(
    tmp_path: Path, dropped: Counter
) -> None:
    file = tmp_path / "audit.log"
    log = AuditLog(str(file), dropped=dropped)
    for number in range(5000):
        log.write("resolve", "/", "refused", source="10.0.0.7")
        log.write("resolve", "/", "refused", source=f"2001:db8::{number:x}")
    for _ in range(50):
        log.write("rollback", "flowers", "done", caller=ANNA)  # orders are never left out
    log.close()
    found = lines(file)
    assert len(found) == 2 * 5 + 50 + 1
    assert (found[-1]["action"], found[-1]["detail"]) == ("left_out", "9990 more refusals")


def test_what_nobody_known_tries_hides_no_refusal_of_a_known_caller(
    tmp_path: Path, dropped: Counter
) -> None:
    file = tmp_path / "audit.log"
    log = AuditLog(str(file), dropped=dropped)
    for number in range(1000):
        log.write("resolve", "/", "refused", source=f"10.0.0.{number % 250}")
    for _ in range(7):
        log.write("unload", "flowers", "refused", caller=ANNA, source="10.0.0.7")
    log.write("unload", "flowers", "refused", caller=Caller(identity="bob"), source="10.0.0.7")
    log.close()
    found = lines(file)
    assert [each["who"] for each in found if each["who"]] == ["anna"] * 5 + ["bob"]
    assert [each["detail"] for each in found if each["action"] == "left_out"] == [
        "900 more refusals",
        "2 more refusals of known callers",
    ]


def test_a_pipe_that_nobody_reads_does_not_hold_the_start(tmp_path: Path, dropped: Counter) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="a named pipe that nobody reads"):
        AuditLog(str(tmp_path / "pipe"), dropped=dropped)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        log = AuditLog(str(tmp_path / "pipe"), dropped=dropped)
        log.write("rollback", "flowers", "done", caller=ANNA)
        log.close()
        assert b'"who":"anna"' in os.read(reader, 1000)
    finally:
        os.close(reader)


def text_of(file: Path) -> str:
    """Of a log; it has no file of its name for the moment in which it is rotated."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def test_a_large_file_is_rotated(tmp_path: Path, dropped: Counter) -> None:
    file = tmp_path / "audit.log"
    log = AuditLog(str(file), dropped=dropped, max_bytes=2000)
    for number in range(100):
        log.write("load", str(number), "done", caller=ANNA)
        until_blocking(lambda n=number: str(n) in text_of(file))
    log.close()
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["audit.log", *(f"audit.log.{number}" for number in range(1, 6))]
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in tmp_path.iterdir())
    kept = lines(*(tmp_path / f"audit.log.{n}" for n in range(5, 0, -1)), file)
    targets = [int(each["target"]) for each in kept]
    assert targets == list(range(targets[0], 100))
    assert count(dropped) == 0


def test_a_file_that_logrotate_moved_is_opened_again(tmp_path: Path, dropped: Counter) -> None:
    file, old = tmp_path / "audit.log", tmp_path / "moved"
    log = AuditLog(str(file), dropped=dropped)
    log.write("load", "before", "done")
    until_blocking(lambda: file.read_text())
    file.rename(old)
    log.write("load", "after", "done")
    log.close()
    assert [each["target"] for each in lines(old)] == ["before"]
    assert [each["target"] for each in lines(file)] == ["after"]


def test_a_full_disk_is_told_and_stops_nobody(
    dropped: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog("/dev/full", dropped=dropped)
    for _ in range(3):
        log.write("load", "x", "done")
    log.close()
    assert count(dropped) == 3
    (record,) = caplog.records
    assert record.getMessage() == (
        "the audit log cannot be written: [Errno 28] No space left on device"
    )


_FILL = """
import resource, signal, sys, threading
from fingerpost.security.audit.audit_log import AuditLog
class Count:
    lost = 0
    def inc(self, n=1): self.lost += n
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
count = Count()
log = AuditLog(sys.argv[1], dropped=count)
resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
for number in range(20):
    log.write("load", f"full-{number}", "done")
import time
while not count.lost: time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write("load", "again", "done")
log.close()
"""


def test_lines_after_a_full_disk_are_whole(tmp_path: Path) -> None:
    """A limit of the file's size stands for the disk: the last line before it is cut."""
    file = tmp_path / "audit.log"
    subprocess.run([sys.executable, "-c", _FILL, str(file)], check=True, timeout=60)
    *_, last = file.read_text().splitlines()
    assert json.loads(last)["target"] == "again"


def test_a_file_that_cannot_be_opened(tmp_path: Path, dropped: Counter) -> None:
    with pytest.raises(ConfigurationError, match="the audit log .* cannot be opened: No such file"):
        AuditLog(str(tmp_path / "missing" / "audit.log"), dropped=dropped)


def test_two_writers_of_one_file_rotate_it_without_loss(tmp_path: Path, dropped: Counter) -> None:
    file = tmp_path / "audit.log"
    logs = [AuditLog(str(file), dropped=dropped, max_bytes=20_000) for _ in range(2)]
    for number in range(200):
        for which, log in enumerate(logs):
            log.write("load", f"{which}-{number}", "done")
        if number % 10 == 0:
            time.sleep(0.002)  # so that they write in turn
    for log in logs:
        log.close()
    files = list(tmp_path.iterdir())
    assert len(files) > 1
    found = sorted(each["target"] for each in lines(*files))
    assert found == sorted(f"{which}-{number}" for which in range(2) for number in range(200))
