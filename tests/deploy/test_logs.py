"""The lines of the log: one for each message, bounded, and without controls."""

from __future__ import annotations

import io
import json
import logging
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fingerpost.deploy.logs import (
    BURST,
    INTERVAL_S,
    MAX_MESSAGE,
    LogHandler,
    goes_to_journal,
    start_logging,
)
from fingerpost.errors import ConfigurationError


class Log:
    """A logger of its own, its lines, and its clock."""

    def __init__(self, form: str = "text") -> None:
        self.now = 0.0
        handler = LogHandler(lambda: self.now, form)
        handler.stream = self._stream = io.StringIO()
        self.logger = logging.Logger("test")
        self.logger.addHandler(handler)

    def text(self) -> str:
        return self._stream.getvalue()

    def lines(self) -> list[str]:
        return self.text().splitlines()


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_request_cannot_forge_a_line_or_reach_the_terminal(log: Log) -> None:
    log.logger.info("GET %s", "/\n2026-01-01 00:00:00 INFO all is well \x1b[2J\u202e")
    (line,) = log.lines()
    assert line.endswith(r"INFO test: GET /\n2026-01-01 00:00:00 INFO all is well \x1b[2J\u202e")


def test_the_journal_gets_the_priority_of_each_line() -> None:
    log = Log("journal")
    log.logger.info("ready\n<0>forged")
    log.logger.warning("late")
    try:
        raise ValueError("bad")
    except ValueError:
        log.logger.exception("it failed")
    info, warning, *failed = log.lines()
    assert (info, warning) == (r"<6>test: ready\n<0>forged", "<4>test: late")
    assert failed[0] == "<3>test: it failed"
    assert all(line.startswith("<3>    ") for line in failed[1:])


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as file:
        state = os.fstat(file.fileno())
        stream = f"{state.st_dev}:{state.st_ino}"
        assert goes_to_journal({"JOURNAL_STREAM": stream}, file.fileno())
        assert not goes_to_journal({"JOURNAL_STREAM": f"{stream}0"}, file.fileno())
        assert not goes_to_journal({}, file.fileno())
    with pytest.raises(ConfigurationError, match="use text or json"):
        start_logging("info", "journal")  # which is found out, and not chosen


def test_a_message_is_cut(log: Log) -> None:
    log.logger.info("x" * 14_000_000)
    assert MAX_MESSAGE < len(log.text()) < MAX_MESSAGE + 200
    assert "13,996,000 more characters" in log.text()


def test_a_traceback_is_indented_escaped_and_cut(log: Log) -> None:
    try:
        raise ValueError("bad\n2026-01-01 00:00:00 INFO forged \x1b[2J" + "y" * 1_000_000)
    except ValueError:
        log.logger.exception("it failed")
    first, *rest = log.lines()
    assert first.endswith("ERROR test: it failed")
    assert all(line.startswith("    ") for line in rest)
    assert "forged \\x1b[2J" in log.text()
    assert len(log.text()) < 10_000


@pytest.mark.slow
def test_what_repeats_is_left_out_and_counted(log: Log) -> None:
    def fault(number: int) -> None:
        log.logger.warning("request %d is malformed", number)

    for number in range(100_000):
        fault(number)
    assert len(log.lines()) == BURST
    log.logger.warning("something else")
    assert log.lines()[-1].endswith("something else")
    log.now += INTERVAL_S
    fault(7)
    assert log.lines()[-2].endswith("request 7 is malformed")
    assert log.lines()[-1].endswith(f"({100_000 - BURST:,} more lines of this kind were left out)")


@pytest.mark.slow
def test_a_flood_is_bounded_over_time(log: Log) -> None:
    for _ in range(60_000):
        log.now += 0.01
        log.logger.error("again")
    assert len(log.lines()) <= 2 * (BURST + 600 / INTERVAL_S)


def test_no_message_below_a_warning_is_left_out(log: Log) -> None:
    for number in range(200):
        log.logger.info("serving %d", number)
    assert len(log.lines()) == 200


def test_a_line_begins_with_the_time_and_its_zone(log: Log) -> None:
    log.logger.info("hello")
    written = datetime.fromisoformat(log.lines()[0].split()[0])
    assert written.utcoffset() is not None
    assert abs(datetime.now().astimezone() - written) < timedelta(minutes=1)


def test_json_has_a_line_for_each_message_with_the_same_names() -> None:
    log = Log("json")
    log.logger.info("GET %s", "/\n\x1b[2J \u202e")
    try:
        raise ValueError("bad")
    except ValueError:
        log.logger.exception("it failed")
    for number in range(BURST + 6):
        log.now += INTERVAL_S if number == BURST + 5 else 0.0
        log.logger.warning("again")
    first, failed, *rest = map(json.loads, log.lines())
    assert list(first) == ["time", "level", "logger", "message"]
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    assert (first["level"], first["logger"]) == ("info", "test")
    assert first["message"] == r"GET /\n\x1b[2J \u202e"
    assert failed["exception"].endswith("ValueError: bad")
    assert "\x1b" not in log.text()
    assert rest[-1]["message"] == "(5 more lines of this kind were left out)"


def test_a_format_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match="--log-format xml: use text or json"):
        start_logging("info", "xml")
