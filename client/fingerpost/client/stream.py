"""Many images at once: a bounded number in flight, a bounded number of results waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from fingerpost.registry import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.client.image import ImageSource
    from fingerpost.client.result import Result

__all__ = ["Arrivals", "OnError", "Stream", "StreamOptions", "check_several"]

OnError: TypeAlias = Literal["yield", "raise"]
Classify: TypeAlias = "Callable[[int, ImageSource], Awaitable[Result]]"

_END: Final[Any] = object()


class StreamOptions:
    """What a stream was asked for, checked.

    Raises:
        ConfigurationError: a value that makes no sense.
    """

    __slots__ = ("concurrency", "on_error", "ordered", "window")

    def __init__(self, *, concurrency: int, on_error: OnError, ordered: bool) -> None:
        if concurrency < 1:
            raise ConfigurationError(f"concurrency={concurrency}: use 1 or more")
        if on_error not in {"yield", "raise"}:
            raise ConfigurationError(f"on_error={on_error!r}: use 'yield' or 'raise'")
        self.concurrency = concurrency
        self.on_error = on_error
        self.ordered = ordered
        # Images read and not yet handed out as results: as many waiting as in flight, so that a
        # consumer that pauses for one answer's time starves no worker.
        self.window = 2 * concurrency

    def checked(self, result: Result) -> Result:
        """The result, or its error raised where the caller wants that."""
        if result.error is not None and self.on_error == "raise":
            raise result.error
        return result


def check_several(images: object) -> None:
    """Raise `ConfigurationError` for one path or one image's bytes, which can be iterated too."""
    if isinstance(images, str | bytes | bytearray | memoryview):
        raise ConfigurationError(
            f"a stream takes several images, not one {type(images).__name__}: use [image]"
        )


class Arrivals:
    """Results in the order they came, or in the order of their images."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._ready: deque[Result] = deque()
        self._early: dict[int, Result] = {}
        self._next = 0

    def add(self, result: Result) -> None:
        """Take a result; in order, it waits for those of all earlier images."""
        if not self._ordered:
            self._ready.append(result)
            return
        self._early[result.index] = result
        while (ready := self._early.pop(self._next, None)) is not None:
            self._ready.append(ready)
            self._next += 1

    def take(self) -> Result | None:
        """The next result, if it is there."""
        return self._ready.popleft() if self._ready else None


class Stream:
    """Reads images as there is room for them and classifies `concurrency` at a time.

    `tasks` is the owner's set of everything that runs: the stream adds its tasks and removes them.
    """

    def __init__(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        classify: Classify,
        options: StreamOptions,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._classify = classify
        self._options = options
        self._tasks = tasks
        self._sync: Iterator[ImageSource] | None = None
        if isinstance(images, AsyncIterable):
            self._async = aiter(images)
        else:
            self._sync = iter(images)
        self._reading = asyncio.Lock()
        self._room = asyncio.Semaphore(options.window)
        self._arrivals = Arrivals(ordered=options.ordered)
        self._wake = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._read = 0

    async def results(self) -> AsyncGenerator[Result]:
        """The results; closing this generator cancels what is in flight and waits for that."""
        tasks = [asyncio.create_task(self._work()) for _ in range(self._options.concurrency)]
        self._tasks.update(tasks)
        for task in tasks:
            task.add_done_callback(self._done)
        yielded = 0
        try:
            while True:
                result = self._arrivals.take()
                if result is not None:
                    self._room.release()
                    yielded += 1
                    yield self._options.checked(result)
                elif self._error is not None:
                    raise self._error
                elif self._ended and yielded == self._read:
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await self._room.acquire()
            index, image = await self._next()
            if image is _END:
                self._room.release()  # for the others, so that they see the end too
                return
            self._arrivals.add(await self._classify(index, image))
            self._wake.set()

    async def _next(self) -> tuple[int, Any]:
        if self._sync is not None:
            return self._took(_END if self._ended else next(self._sync, _END))
        async with self._reading:  # an async generator cannot be read by two tasks at once
            return self._took(_END if self._ended else await anext(self._async, _END))

    def _took(self, image: Any) -> tuple[int, Any]:
        if image is _END:
            self._ended = True
        else:
            self._read += 1
        return self._read - 1, image

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            error: BaseException | None = RuntimeError("the client was closed while it streamed")
        else:
            error = task.exception()
        self._error = self._error or error
        self._wake.set()
