"""What a caller passes to a stream: images with or without keys, and the options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fingerpost.client.images.load import ImageSource, image_key
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.client.streaming.concurrency import Concurrency

__all__ = ["Item", "OnError", "StreamOptions", "check_images", "keyed"]

OnError: TypeAlias = Literal["yield", "raise"]
"""What a stream does with the error of an image: see `Client.stream`."""

Item: TypeAlias = ImageSource | tuple[object, ImageSource]
"""What a stream reads: an image, or a pair of key and image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The checked options of one stream: see `Client.stream`.

    Raises:
        ConfigurationError: a value that is not valid.
    """

    concurrency: Concurrency
    on_error: OnError
    ordered: bool
    max_bytes: float

    def __post_init__(self) -> None:
        concurrency = self.concurrency
        if concurrency != "auto" and not (isinstance(concurrency, int) and concurrency >= 1):
            raise ConfigurationError(f"concurrency={concurrency!r}: use 'auto', or 1 or more")
        if self.on_error not in {"yield", "raise"}:
            raise ConfigurationError(f"on_error={self.on_error!r}: use 'yield' or 'raise'")


def keyed(item: Item, index: int) -> tuple[str, ImageSource]:
    """The key and the image of an item; without a key, the image's path or index is its key."""
    if isinstance(item, tuple):
        if len(item) != 2:
            raise ConfigurationError(
                f"a stream takes images or pairs (key, image), not a tuple of {len(item)}"
            )
        key, image = item
        return str(key), image
    return image_key(item, index), item


def check_images(images: object) -> None:
    """Raise `ConfigurationError` for one path or the bytes of one image, which are iterable too."""
    if isinstance(images, str | bytes | bytearray | memoryview):
        raise ConfigurationError(
            f"a stream takes several images, not one {type(images).__name__}: use [image]"
        )
