"""The access log: real files, a disk that does not keep up, logrotate."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client import Counter

from fingerpost.errors import ConfigurationError
from fingerpost.worker.telemetry.access_log import AccessEntry, AccessLog
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.shell


def entry(path: str = "/", status: int = 200) -> AccessEntry:
    return AccessEntry(
        time="2026-10-08T19:23:52.123Z",
        method="POST",
        path=path,
        model="cats",
        version="1",
        status=status,
        error="",
        body_bytes=7,
        images=1,
        decode_ms=1.5,
        queue_ms=0.0,
        inference_ms=2.0,
        total_ms=4.0,
        client="127.0.0.1",
        trace_id="",
    )


def lines(file: Path) -> list[AccessEntry]:
    text = file.read_text() if file.exists() else ""
    return [msgspec.json.decode(line, type=AccessEntry) for line in text.splitlines()]


@pytest.fixture
def dropped() -> Counter:
    return Counter("dropped", "dropped", registry=None)


def count(counter: Counter) -> float:
    return next(iter(counter.collect())).samples[0].value


def writers() -> set[threading.Thread]:
    """The threads of access logs."""
    return {each for each in threading.enumerate() if each.name == "access log"}


def test_every_line_is_written_by_the_end(tmp_path: Path, dropped: Counter) -> None:
    before, file = writers(), tmp_path / "access.log"
    file.write_bytes(msgspec.json.encode(entry("/old")) + b"\n")
    log = AccessLog(str(file), dropped=dropped)
    sent = [entry(f"/{number}") for number in range(1000)]
    for each in sent:
        log.write(each)
    log.close()
    assert lines(file) == [entry("/old"), *sent]
    assert count(dropped) == 0
    assert not writers() - before


def test_what_a_caller_writes_stays_one_line(tmp_path: Path, dropped: Counter) -> None:
    file = tmp_path / "access.log"
    log = AccessLog(str(file), dropped=dropped)
    log.write(entry('/"}\n{"status":200}\u2028\x00\x1b[2J'))
    log.close()
    assert len(file.read_bytes().splitlines()) == 1
    assert msgspec.json.decode(file.read_bytes())["path"] == '/"}\n{"status":200}\u2028\x00\x1b[2J'
    assert b"\x1b" not in file.read_bytes()


def test_standard_output(capfd: pytest.CaptureFixture[str], dropped: Counter) -> None:
    log = AccessLog("-", dropped=dropped)
    log.write(entry())
    log.close()
    print("still open", flush=True)
    first, second = capfd.readouterr().out.splitlines()
    assert msgspec.json.decode(first, type=AccessEntry) == entry()
    assert second == "still open"


def test_a_rotated_file_is_opened_again(tmp_path: Path, dropped: Counter) -> None:
    file, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(file), dropped=dropped)
    log.write(entry("/before"))
    until_blocking(lambda: lines(file))
    file.rename(old)
    log.write(entry("/after"))
    log.close()
    assert [each.path for each in lines(old)] == ["/before"]
    assert [each.path for each in lines(file)] == ["/after"]


def test_a_disk_that_hangs_delays_nobody(tmp_path: Path, dropped: Counter) -> None:
    """A named pipe that is full stands for it: whoever writes there waits."""
    before, pipe = writers(), tmp_path / "access.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(pipe), dropped=dropped, max_waiting=10)
    try:
        long = entry("/" + 200 * "x")
        until_blocking(lambda: [log.write(long) for _ in range(100)] and count(dropped))
        started = time.monotonic()
        for _ in range(1000):
            log.write(long)
        assert time.monotonic() - started < 1
        assert count(dropped) > 900
    finally:
        os.close(reader)  # the writer's write fails: it goes on, and counts
    log.close()
    assert not writers() - before


def test_a_full_disk_is_told_once_and_counted(
    dropped: Counter, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    log = AccessLog("/dev/full", dropped=dropped)
    for _ in range(3):
        log.write(entry())
    log.close()
    assert count(dropped) >= 3
    assert caplog.text.count("No space left") == 1
    assert capfd.readouterr().err == ""


def test_a_file_that_cannot_be_opened(tmp_path: Path, dropped: Counter) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        AccessLog(str(tmp_path / "missing" / "access.log"), dropped=dropped)
