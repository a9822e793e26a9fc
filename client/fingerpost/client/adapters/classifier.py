"""Images in, answers out, in the same order: the common part of the adapters."""

from __future__ import annotations

from functools import partial
from math import nan
from typing import TYPE_CHECKING, NamedTuple, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.streaming.concurrency import Concurrency
    from fingerpost.client.streaming.options import OnError
    from fingerpost.client.sync import SyncClient

__all__ = ["Answer", "Classifier", "Options"]


class Answer(NamedTuple):
    """The best label, its score (0 to 1) and `""`; or `""`, NaN and the error, `code: message`."""

    label: str
    score: float
    error: str


class Options(TypedDict, total=False):
    """Optional arguments of an adapter: see `Client.stream`."""

    timeout_s: float | None
    concurrency: Concurrency
    shrink: bool
    on_error: OnError


class Classifier:
    """Classifies images by a `SyncClient`; it can be pickled.

    Raises:
        InvalidName, ConfigurationError: on construction.
    """

    def __init__(self, client: SyncClient, model: str, options: Options) -> None:
        self._stream = partial(client.stream, model=model, top=1, ordered=True, **options)
        self._stream(())  # checks the arguments, and sends nothing

    def __call__(self, images: Iterable[ImageSource]) -> Iterator[Answer]:
        """The answers, in the order of the images.

        Raises:
            FingerpostError: as `Client.classify`, with `on_error="raise"` only.
        """
        for result in self._stream(enumerate(images)):
            if result.error is None:
                yield Answer(result.label, result.score, "")
            else:
                yield Answer("", nan, f"{result.error.code}: {result.error}")
