"""How a fake worker behaves and what it received: set by a test, read by the worker's threads."""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.testing.models import FakeModels

__all__ = ["Behaviour", "ReceivedImage"]


@dataclass(frozen=True, slots=True)
class ReceivedImage:
    """An image that reached a model.

    Attributes:
        model: the model's name.
        version: the version that ran it.
        image: the bytes as they were sent.
    """

    model: str
    version: str
    image: bytes


class Behaviour:
    """The behaviour of one worker with all its models. Every thread may call every method."""

    def __init__(self, models: FakeModels) -> None:
        self._models = models
        self._changed = threading.Condition()
        self._paused = False
        self._delay_s = 0.0
        self._error: Exception | None = None
        self._errors_left: int | None = None
        self._received: list[ReceivedImage] = []

    @property
    def received(self) -> tuple[ReceivedImage, ...]:
        """The images that reached a model, oldest first, failed ones too."""
        with self._changed:
            return tuple(self._received)

    @property
    def delay_s(self) -> float:
        """Seconds that every run of a model takes."""
        return self._delay_s

    @delay_s.setter
    def delay_s(self, delay_s: float) -> None:
        if not isinstance(delay_s, int | float) or not 0 <= delay_s <= threading.TIMEOUT_MAX:
            raise ConfigurationError(f"delay_s is {delay_s!r}: it must be 0 or more seconds")
        with self._changed:
            self._delay_s = delay_s
            self._changed.notify_all()

    def pause(self) -> None:
        """Let no run of a model end."""
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Let runs end again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def fail(self, error: Exception, times: int | None) -> None:
        """Fail the next `times` images with copies of `error`; all of them, if None."""
        if not isinstance(error, Exception):
            raise ConfigurationError(
                f"error is {error!r}: give an exception, such as ModelFailed('out of memory')"
            )
        if times is not None and (not isinstance(times, int) or times < 1):
            raise ConfigurationError(f"times is {times!r}: it must be 1 or more images")
        with self._changed:
            self._error, self._errors_left = error, times

    def recover(self) -> None:
        """No delay, no pause, no failure; what was received stays."""
        with self._changed:
            self._paused, self._delay_s = False, 0.0
            self._error = self._errors_left = None
            self._changed.notify_all()

    def wake(self) -> None:
        """Let every run look at its `closed` event."""
        with self._changed:
            self._changed.notify_all()

    def begin_run(self, closed: threading.Event) -> None:
        """Block for as long as a run of a model takes, or until `closed` is set."""
        began = time.monotonic()
        with self._changed:
            while not closed.is_set():
                left_s = began + self._delay_s - time.monotonic()
                if self._paused:
                    self._changed.wait()
                elif left_s > 0:
                    self._changed.wait(left_s)
                else:
                    return

    def answer(self, model: str, version: int, image: bytes) -> tuple[tuple[str, float], ...]:
        """What a version answers for an image. Raises what `fail` or the model's function says."""
        with self._changed:
            self._received.append(ReceivedImage(model, str(version), image))
            error = self._next_error()
        if error is not None:
            raise error
        return self._models.answer(model, version, image)

    def _next_error(self) -> Exception | None:
        error = self._error
        if error is None:
            return None
        if self._errors_left is not None:
            self._errors_left -= 1
            if not self._errors_left:
                self._error = self._errors_left = None
        # An error that is raised holds the frames that it went through.
        return copy.copy(error).with_traceback(None)
