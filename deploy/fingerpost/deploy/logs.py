"""The log of the command's services: lines on standard error, safe to read and bounded in size.

A message is one line of at most 4,000 characters, in which control characters are escaped, so that
a request can neither forge a line nor reach the reader's terminal; a traceback's lines are
indented. What repeats is left out: of warnings and errors from one place in the code, 30 come at
once and then one in two seconds, and the next line says how many were left out.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from fingerpost.basics.printable import printable, printable_json
from fingerpost.deploy.variables import warn_of_unknown
from fingerpost.errors import ConfigurationError

__all__ = [
    "JournalFormatter",
    "JsonFormatter",
    "LineFormatter",
    "LogHandler",
    "check_log_options",
    "goes_to_journal",
    "start_logging",
]

MAX_MESSAGE: Final = 4000  # characters
MAX_TRACEBACK: Final = 8000
# One fault writes at most 30 lines and then one in 2 s: 120 KB at once, and 2 KB a second.
BURST: Final = 30
INTERVAL_S: Final = 2.0
# Of syslog(3), for the levels from there on.
_PRIORITIES: Final = ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7))


class LineFormatter(logging.Formatter):
    """Makes one line of a record; the lines of its traceback follow, each indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """The local time with its offset from UTC, to the millisecond (ISO 8601)."""
        del datefmt
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record, escaped and cut."""
        record.message = printable(record.message, most=MAX_MESSAGE)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        """The traceback, escaped and indented; of a long one the begin and the end."""
        text = super().formatException(ei)  # type: ignore[arg-type] # typed only in the stubs
        if len(text) > MAX_TRACEBACK:
            left_out = len(text) - MAX_TRACEBACK
            half = MAX_TRACEBACK // 2
            text = f"{text[:half]}\n... ({left_out:,} characters) ...\n{text[-half:]}"
        return "\n".join(f"    {line}" for line in printable(text, keep="\n").split("\n"))


class JsonFormatter(logging.Formatter):
    """Makes one line of JSON of a record, with `time`, `level`, `logger` and `message`.

    A traceback is `exception`. These names stay.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, with every character escaped that a terminal could obey."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage(), most=MAX_MESSAGE),
        }
        if record.exc_info:
            line["exception"] = printable(
                self.formatException(record.exc_info)[-MAX_TRACEBACK:], keep="\n"
            )
        return printable_json(msgspec.json.encode(line).decode())


class JournalFormatter(LineFormatter):
    """Makes one line of a record for systemd's journal, which knows the time by itself.

    `<3>` before it is its priority, see sd-daemon(3).
    """

    def __init__(self) -> None:
        super(LineFormatter, self).__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its priority; so is each line of a traceback."""
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


FORMATTERS: Final = {"text": LineFormatter, "json": JsonFormatter, "journal": JournalFormatter}


def goes_to_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether standard error is the stream of systemd's journal that `environ` names."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        state = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(state.st_dev), str(state.st_ino))


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg] # generic only in the stubs
    """Writes records to standard error, but leaves out what repeats.

    Args:
        now: the clock, in seconds.
        form: a key of `FORMATTERS`.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, form: str = "text") -> None:
        super().__init__()
        self.setFormatter(FORMATTERS[form]())
        self._now = now
        # By place in the code, of which there is a fixed number: the lines that may come now,
        # the time when that was so, and how many were left out since the last one.
        self._places: dict[tuple[str, int], tuple[float, float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless too many came from its place."""
        if record.levelno < logging.WARNING:
            super().emit(record)
            return
        place, now = (record.pathname, record.lineno), self._now()
        allowed, at, left_out = self._places.get(place, (float(BURST), now, 0))
        allowed = min(BURST, allowed + (now - at) / INTERVAL_S)
        if allowed < 1:
            self._places[place] = (allowed, now, left_out + 1)
            return
        self._places[place] = (allowed - 1, now, 0)
        super().emit(record)
        if left_out:
            text = f"({left_out:,} more lines of this kind were left out)"
            super().emit(
                logging.LogRecord(
                    record.name, record.levelno, record.pathname, record.lineno, text, None, None
                )
            )


def check_log_options(level: str, form: str) -> None:
    """Check the values of `--log-level` and `--log-format`.

    Raises:
        ConfigurationError: one of them is not a valid name.
    """
    if form not in ("text", "json"):
        raise ConfigurationError(f"--log-format {form}: use text or json")
    if level.upper() not in logging.getLevelNamesMapping():
        raise ConfigurationError(f"--log-level {level}: use debug, info, warning or error")


def start_logging(level: str, form: str = "text") -> None:
    """Log messages of this level and above to standard error, one line each: text, or JSON.

    The first are of environment variables that are misspelt.

    Text for systemd's journal has each message's priority instead of its level and time.

    Raises:
        ConfigurationError: `level` or `form` is not a valid name.
    """
    check_log_options(level, form)
    if form == "text" and goes_to_journal(os.environ):
        form = "journal"
    logging.basicConfig(level=level.upper(), handlers=[LogHandler(form=form)], force=True)
    warn_of_unknown(os.environ)
