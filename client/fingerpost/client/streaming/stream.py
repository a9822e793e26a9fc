"""A stream of images: a bounded number is in flight, and a bounded number of results waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fingerpost.client.streaming.options import keyed
from fingerpost.client.streaming.window import StreamWindow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator

    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.result import Result
    from fingerpost.client.streaming.options import Item, StreamOptions

    Classify: TypeAlias = Callable[[int, str, ImageSource], Awaitable[Result]]

__all__ = ["Stream"]

_END: Final[Any] = object()


class Stream:
    """Reads images while there is room and classifies as many concurrently as its limit allows.

    Each task reads an image, classifies it, and goes on to the next one. It ends if there are too
    many tasks or no room, and is started again when the consumer takes a result. So a pause of the
    consumer stops the reading, and an image is read by the task that sends it, just before that.

    Args:
        images: see `Client.stream`.
        classify: called with the index, the key and the image; must not raise `FingerpostError`.
        options: of the stream.
        tasks: the owner's set of all running tasks; the stream adds its tasks and removes them.
    """

    def __init__(
        self,
        images: Iterable[Item] | AsyncIterable[Item],
        classify: Classify,
        options: StreamOptions,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._classify = classify
        self._owner = tasks
        self._sync: Iterator[Item] | None = None
        if isinstance(images, AsyncIterable):
            self._async = aiter(images)
        else:
            self._sync = iter(images)
        self._clock = asyncio.get_running_loop().time
        self._window = StreamWindow(options)
        self._limit = self._window.limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.Lock()
        self._wake = asyncio.Event()
        self._error: BaseException | None = None
        self._in_flight = 0

    async def results(self) -> AsyncGenerator[Result]:
        """The results; closing this generator cancels what is in flight and waits for that."""
        window = self._window
        try:
            while True:
                self._fill()
                result = window.take()
                if result is not None:
                    yield result
                elif self._error is not None:
                    raise self._error
                elif window.done and not self._tasks:
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _fill(self) -> None:
        """Start as many tasks as there is room for."""
        window = self._window
        while len(self._tasks) < self._limit.limit and window.has_room() and self._error is None:
            window.claim()
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            self._owner.add(task)
            task.add_done_callback(self._done)

    async def _work(self) -> None:
        """Classify images one after the other; a place for the first one is claimed."""
        window = self._window
        while True:
            if self._sync is None:
                item = await self._next()
            else:
                item = _END if window.ended else next(self._sync, _END)
            if item is _END:
                window.end()
                return
            index = window.read()
            key, image = keyed(item, index)
            self._in_flight += 1
            result = await self._classify(index, key, image)
            self._limit.answered(self._clock(), self._in_flight, result)
            self._in_flight -= 1
            window.add(result)
            self._wake.set()
            if not window.has_room() or len(self._tasks) > self._limit.limit:
                return
            window.claim()

    async def _next(self) -> Any:
        """The next item of an async iterable, or `_END`.

        The caller must record it before it waits for anything.
        """
        async with self._reading:  # two tasks cannot read an async generator at the same time
            return _END if self._window.ended else await anext(self._async, _END)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._owner.discard(task)
        if task.cancelled():
            error: BaseException | None = RuntimeError("the client was closed while it streamed")
        else:
            error = task.exception()
        self._error = self._error or error
        self._wake.set()
