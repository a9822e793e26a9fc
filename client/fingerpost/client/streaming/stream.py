"""Many images at once: a bounded number in flight, a bounded number of results waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from fingerpost.client.images.load import image_key
from fingerpost.client.streaming.concurrency import Pace
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.result import Result
    from fingerpost.client.streaming.concurrency import Concurrency

__all__ = ["Arrivals", "Item", "OnError", "Stream", "StreamOptions", "check_several", "keyed"]

OnError: TypeAlias = Literal["yield", "raise"]
Item: TypeAlias = "ImageSource | tuple[object, ImageSource]"
Classify: TypeAlias = "Callable[[int, str, ImageSource], Awaitable[Result]]"

_END: Final[Any] = object()


class StreamOptions:
    """What a stream was asked for, checked.

    Raises:
        ConfigurationError: a value that makes no sense.
    """

    __slots__ = ("concurrency", "most_bytes", "on_error", "ordered")

    def __init__(
        self, *, concurrency: Concurrency, on_error: OnError, ordered: bool, most_bytes: float
    ) -> None:
        if concurrency != "auto" and not (isinstance(concurrency, int) and concurrency >= 1):
            raise ConfigurationError(f"concurrency={concurrency!r}: use 'auto', or 1 or more")
        if on_error not in {"yield", "raise"}:
            raise ConfigurationError(f"on_error={on_error!r}: use 'yield' or 'raise'")
        self.concurrency = concurrency
        self.most_bytes = most_bytes
        self.on_error = on_error
        self.ordered = ordered

    def pace(self) -> Pace:
        """The pace of one stream."""
        return Pace(self.concurrency, self.most_bytes)

    def checked(self, result: Result) -> Result:
        """The result, or its error raised where the caller wants that."""
        if result.error is not None and self.on_error == "raise":
            raise result.error
        return result


def keyed(item: Item, index: int) -> tuple[str, ImageSource]:
    """An image and its key: as given with it, or its path, or its index."""
    if isinstance(item, tuple):
        if len(item) != 2:
            raise ConfigurationError(
                f"a stream takes images or (key, image), not {len(item)} of them"
            )
        key, image = item
        return str(key), image
    return image_key(item, index), item


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
    """Reads images as there is room for them and classifies as many at a time as its pace says.

    Each task reads an image, classifies it, and goes on to the next; it ends where there are too
    many or no room, and the consumer starts one again when it takes a result. So a pause of the
    consumer stops the reading, and an image is read by the task that sends it, just before.

    `tasks` is the owner's set of everything that runs: the stream adds its tasks and removes them.
    """

    def __init__(
        self,
        images: Iterable[Item] | AsyncIterable[Item],
        classify: Classify,
        options: StreamOptions,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._classify = classify
        self._options = options
        self._owner = tasks
        self._sync: Iterator[Item] | None = None
        if isinstance(images, AsyncIterable):
            self._async = aiter(images)
        else:
            self._sync = iter(images)
        self._clock = asyncio.get_running_loop().time
        self._pace = options.pace()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.Lock()
        self._arrivals = Arrivals(ordered=options.ordered)
        self._wake = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._claimed = 0  # read, or about to be
        self._read = 0
        self._yielded = 0
        self._busy = 0

    async def results(self) -> AsyncGenerator[Result]:
        """The results; closing this generator cancels what is in flight and waits for that."""
        try:
            while True:
                self._fill()
                result = self._arrivals.take()
                if result is not None:
                    self._yielded += 1
                    yield self._options.checked(result)
                elif self._error is not None:
                    raise self._error
                elif self._ended and not self._tasks and self._yielded == self._read:
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _room(self) -> bool:
        return not self._ended and self._claimed - self._yielded < self._pace.window

    def _fill(self) -> None:
        """Start as many tasks as there is room for."""
        while len(self._tasks) < self._pace.limit and self._room() and self._error is None:
            self._claimed += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            self._owner.add(task)
            task.add_done_callback(self._done)

    async def _work(self) -> None:
        """Called with a place claimed for one image."""
        while True:
            index, item = await self._next()
            if item is _END:
                self._claimed -= 1
                return
            key, image = keyed(item, index)
            self._busy += 1
            result = await self._classify(index, key, image)
            self._pace.answered(self._clock(), self._busy, result)
            self._busy -= 1
            self._arrivals.add(result)
            self._wake.set()
            if not self._room() or len(self._tasks) > self._pace.limit:
                return
            self._claimed += 1

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
        self._owner.discard(task)
        if task.cancelled():
            error: BaseException | None = RuntimeError("the client was closed while it streamed")
        else:
            error = task.exception()
        self._error = self._error or error
        self._wake.set()
