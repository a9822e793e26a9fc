"""From what a caller has (a path, bytes, a PIL image, an array) to the encoded image to send."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from fingerpost.client.images.oneshot import OneShot, Readable
from fingerpost.errors import BrokenImage, EmptyImage, ImageError, UnsupportedImage

if TYPE_CHECKING:
    from collections.abc import Mapping

    import PIL.Image

__all__ = ["Array", "ImageSource", "image_key", "load_image"]


class Array(Protocol):
    """NumPy's array interface, version 3: arrays of NumPy, and PIL images too.

    Neither NumPy nor Pillow is imported for it.
    """

    @property
    def __array_interface__(self) -> Mapping[str, Any]:
        """`shape` and `typestr` at least (numpy.org/doc/stable/reference/arrays.interface.html)."""
        ...


ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | Array
    | Readable
    | AsyncIterable[bytes]
    | Iterator[bytes]
)
"""What a client classifies: see `Client.classify`."""

# zlib's fastest level: the network is not the bottleneck that the encoder would be at level 6.
_PNG_LEVEL = 1
# What PNG stores as it is; other modes are converted to RGB.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})


def image_key(image: ImageSource, index: int) -> str:
    """The path as text, or the index as text for an image that is not a path."""
    if type(image) is bytes:  # the common case: the test below is slow, and is not needed here
        return str(index)
    return os.fspath(image) if isinstance(image, str | os.PathLike) else str(index)


async def load_image(image: ImageSource) -> bytes | OneShot:
    """The encoded image. Files are read, and pixels encoded as PNG, in a thread.

    A PIL image that was opened and not used yet is sent as the file that it is. Any other one is
    turned upright as its EXIF data says, which `PIL.ImageOps.exif_transpose` has done already.
    An array is uint8 `[H, W]`, `[H, W, 1]` (grey), `[H, W, 3]` (RGB) or `[H, W, 4]` (RGBA). A file
    object that can seek is read from its current position. One that cannot seek, and an iterator of
    bytes, are returned unread as a `OneShot`.

    Raises:
        EmptyImage: there are no bytes or no pixels.
        UnsupportedImage: the type, dtype, shape or mode is not supported.
        BrokenImage: Pillow cannot decode the PIL image.
        ImageError: the file cannot be read.
    """
    data: bytes | OneShot
    if isinstance(image, bytes):
        data = image
    elif isinstance(image, bytearray | memoryview):
        data = bytes(image)
    elif isinstance(image, AsyncIterable):
        return OneShot(image)
    else:
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(None, _load, image)
    if not data:
        raise EmptyImage("the image has no bytes")
    return data


def _load(image: Any) -> bytes | OneShot:
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise ImageError(f"cannot read {os.fspath(image)!r}: {error}") from error
    # A program that has a PIL image has imported PIL already.
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(image, pil.Image):
        return _encode(image)
    if hasattr(image, "__array_interface__"):
        return _encode(_from_array(image))
    if hasattr(image, "read"):
        return _read(image)
    if isinstance(image, Iterator):
        return OneShot(image)
    raise UnsupportedImage(
        f"{type(image).__name__} is not a supported image: use a path, bytes, a file object, a PIL "
        "image, a uint8 NumPy array or an iterator of bytes"
    )


def _read(file: Any) -> bytes | OneShot:
    try:
        data = file.read() if getattr(file, "seekable", bool)() else OneShot(file)
    except (OSError, ValueError) as error:  # ValueError: a closed file
        raise ImageError(f"cannot read {file!r}: {error}") from error
    if not isinstance(data, bytes | OneShot):
        raise UnsupportedImage(
            f"{file!r} returns {type(data).__name__}: open it in binary mode ('rb')"
        )
    return data


def _from_array(array: Any) -> PIL.Image.Image:
    interface = array.__array_interface__
    shape, dtype = tuple(interface["shape"]), interface["typestr"]
    if dtype != "|u1":
        raise UnsupportedImage(
            f"an array of dtype {dtype!r} is not a supported image: scale it to 0..255 and use "
            "array.astype('uint8')"
        )
    if len(shape) not in {2, 3} or (len(shape) == 3 and shape[2] not in {1, 3, 4}):
        raise UnsupportedImage(
            f"an array of shape {shape} is not a supported image: use [H, W], [H, W, 1], "
            "[H, W, 3] or [H, W, 4], one array per image"
        )
    if 0 in shape:
        raise EmptyImage(f"an array of shape {shape} has no pixels")
    from PIL import Image

    return Image.fromarray(array[:, :, 0] if shape[2:] == (1,) else array)


def _encode(image: PIL.Image.Image) -> bytes:
    if 0 in image.size:
        raise EmptyImage(f"a PIL image of size {image.size} has no pixels")
    encoded = _file_of(image)
    if encoded is not None:
        return encoded
    if image.mode in {"F", "I"} or image.mode.startswith("I;16"):
        raise UnsupportedImage(
            f"a PIL image of mode {image.mode!r} has no fixed range: scale it to 0..255 and use "
            "image.convert('L'), or send the file that it is from"
        )
    from fingerpost.client.images.decoding import turn_of

    buffer = io.BytesIO()
    try:
        turn = turn_of(image)
        if image.mode not in _PNG_MODES:
            alpha = "LA" if image.mode == "La" else "RGBA"
            image = image.convert(alpha if image.has_transparency_data else "RGB")
        pixels = image if turn is None else image.transpose(turn)
        pixels.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    except (OSError, SyntaxError, ValueError) as error:
        raise BrokenImage(f"Pillow cannot decode the image: {error}") from error
    return buffer.getvalue()


def _file_of(image: PIL.Image.Image) -> bytes | None:
    """The file of an image that was opened and not used yet; None of any other image.

    Workers decode it by the same rules as if the path had been passed, and it is smaller than the
    PNG that would be made of it.
    """
    from fingerpost.client.images.decoding import FORMATS

    file = getattr(image, "fp", None)
    waiting = getattr(image, "tile", None)  # empty once the pixels are decoded
    drafted = getattr(image, "decoderconfig", ())
    if not file or not waiting or drafted or image.tell() != 0:
        return None
    if image.format not in (*FORMATS, "MPO"):  # a phone's JPEG with a second image in it
        return None
    try:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
    except (OSError, ValueError):  # ValueError: a closed file
        return None
    return data if isinstance(data, bytes) else None
