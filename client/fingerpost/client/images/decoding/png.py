"""PNG: its chunks are read and checked here, Pillow decodes the pixels.

Pillow's own reader checks no sum over the pixels, and gives wrong ones where a bit of them flipped;
it refuses a picture for a damaged chunk that has nothing to do with its pixels; and it compares the
transparent colour of 1, 2, 4 and 16 bits with pixels of 8. To read the chunks here first, and with
it after that, took a quarter more for a small image. W3C PNG (third edition), 5 and 13.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import zlib
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageFile, ImagePalette

from fingerpost.client.images.decoding.bits import lower, upper
from fingerpost.errors import BrokenImage, UnsupportedImage

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PngFile"]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK: Final = struct.Struct(">I4s")
_HEADER: Final = struct.Struct(">II5B")
_NEEDED: Final = frozenset((b"IHDR", b"PLTE", b"IDAT", b"tRNS"))
# A palette of which one colour is transparent, and all others are not.
_ONE_CLEAR: Final = re.compile(rb"\xff*\0\xff*")

# A chunk takes some 2 us in Python. Encoders write 8 KB and more in each.
_MAX_CHUNKS: Final = 1 << 16

# Metadata is decompressed up to here; EXIF data has at most 64 KB in a JPEG.
_MAX_TEXT_BYTES: Final = 1 << 18

# Texts that say how to turn the image: by Adobe and, the last two, by ImageMagick. There is one of
# each, and 50,000 that unfold to `_MAX_TEXT_BYTES` would take 10 s.
_TURNING: Final = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
_MAX_TEXTS: Final = 16

# Bytes that are inflated at a time to count them.
_STEP_BYTES: Final = 1 << 16
# Bytes that the decoder gets at a time; see `opening`.
_FEED_BYTES: Final = 1 << 24

# What may be damaged without harm to the pixels. Any other name may be `IDAT` with a flipped bit.
_HARMLESS: Final = frozenset(
    b"acTL bKGD cHRM cICP cLLI caBX dSIG eXIf fcTL fdAT gAMA hIST iCCP iTXt mDCV oFFs pCAL pHYs "
    b"sBIT sCAL sPLT sRGB sTER tEXt tIME vpAg zTXt".split()
)
# Pillow's modes of the pixels and of the bytes, by colour type (gray, RGB, palette, gray and RGB
# with alpha) and bits for each sample.
_MODES: Final = {
    (0, 1): ("1", "1"),
    (0, 2): ("L", "L;2"),
    (0, 4): ("L", "L;4"),
    (0, 8): ("L", "L"),
    (0, 16): ("I;16", "I;16B"),
    (2, 8): ("RGB", "RGB"),
    (2, 16): ("RGB", "RGB;16B"),
    (3, 1): ("P", "P;1"),
    (3, 2): ("P", "P;2"),
    (3, 4): ("P", "P;4"),
    (3, 8): ("P", "P"),
    (4, 8): ("LA", "LA"),
    (4, 16): ("RGBA", "LA;16B"),
    (6, 8): ("RGBA", "RGBA"),
    (6, 16): ("RGBA", "RGBA;16B"),
}
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GRAY, _RGB, _PALETTE = 0, 2, 3
_ZEROS: Final = (0, (0, 0), (0, 0, 0), (0, 0, 0, 0))
# First column and row of each pass of Adam7, and the steps to the next ones.
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


class PngFile(ImageFile.ImageFile):
    """A PNG whose chunks are sound, with the pixels and the metadata that turns them upright.

    Raises:
        BrokenImage: a chunk that the pixels depend on is missing or damaged.
        UnsupportedImage: there is a chunk that a reader must know, and no standard has it.
    """

    format = "PNG"

    def __init__(self, source: io.BytesIO) -> None:
        self._chunks = chunks = _Chunks(source.getvalue())
        self._transparent, self._depth = chunks.transparent(), chunks.depth
        self._pieces = chunks.pixels(_FEED_BYTES)
        super().__init__(source)
        if chunks.text:
            self.info.update(chunks.metadata())

    def _open(self) -> None:
        """Called by Pillow: say how the pixels are to be decoded."""
        chunks = self._chunks
        self._size = chunks.size
        self._mode, packed = _MODES[chunks.colour, chunks.depth]
        self.tile = [ImageFile._Tile("zip", (0, 0, *chunks.size), 0, packed)]
        if chunks.interlaced:
            self.decoderconfig = (1,)
        if chunks.colour == _PALETTE:
            self.palette = ImagePalette.raw("RGB", chunks.body(b"PLTE"))
            alpha = chunks.body(b"tRNS")
            if alpha:
                clear = alpha.find(0) if _ONE_CLEAR.fullmatch(alpha) else None
                self.info["transparency"] = alpha if clear is None else clear

    def load_read(self, read_bytes: int) -> bytes:
        """Called by Pillow: the next piece of the compressed pixels.

        Without a copy of them all: with one, glibc gave the memory of some images back to the
        system after each, and taking it again made a palette of 1600 x 1200 half as slow again.
        """
        return next(self._pieces, b"")

    @property
    def decodings(self) -> int:
        """How often the pixels are gone over: where a colour of 16 bits is transparent, 4 times."""
        return 4 if self._transparent is not None and self._depth == 16 else 1

    def finished(self) -> Image.Image:
        """The decoded pixels; where a colour is transparent, LA or RGBA."""
        self.load()
        if self._chunks.interlaced or self._ends_black():
            self._check_all_there()
        if self._transparent is None:
            return self
        scale = 255 // ((1 << self._depth) - 1) if self._depth < 8 else 1
        high = _bands(self)
        samples = [*high, *self._low()] if self._depth == 16 else high
        colour = [value >> 8 if self._depth == 16 else value * scale for value in self._transparent]
        colour += [value & 0xFF for value in self._transparent] if self._depth == 16 else []
        opaque = (
            band.point([0 if each == value else 255 for each in range(256)])
            for band, value in zip(samples, colour, strict=True)
        )
        alpha = functools.reduce(ImageChops.lighter, opaque)
        return Image.merge("LA" if len(high) == 1 else "RGBA", (*high, alpha))

    def _ends_black(self) -> bool:
        """Whether all samples of the last row are 0, which an image that ends early has too."""
        last = self.height - 1
        if self.im.getpixel((self.width // 2, last)) not in _ZEROS:  # of most images, and is quick
            return False
        return not any(self.crop((0, last, self.width, self.height)).tobytes())

    def _check_all_there(self) -> None:
        """Pillow leaves rows black that are missing; they are counted where the last row is."""
        inflater, left = zlib.decompressobj(), self._chunks.pixel_bytes()
        for data in self._chunks.pixels(_STEP_BYTES):
            while data and left > 0 and not inflater.eof:
                left -= len(inflater.decompress(data, _STEP_BYTES))
                data = inflater.unconsumed_tail
        if left > len(inflater.flush(max(1, left))):
            raise BrokenImage(f"the last {left:,} bytes of the image's pixels are missing")

    def _low(self) -> list[Image.Image]:
        """The lower bytes of samples of 16 bits."""
        if self.mode == "I;16":
            return [lower(self)]
        again = PngFile(io.BytesIO(self._chunks.data))
        # "16L" makes Pillow take the second byte of each sample instead of the first.
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        again.load()
        return list(again.split())


class _Chunks:
    """The chunks of a PNG up to its end, each checked by its sum."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._spans: dict[bytes, tuple[int, int]] = {}
        self._pixels: list[tuple[int, int]] = []
        self.text: list[tuple[bytes, bytes]] = []
        for name, start, end, sound in _walk(data):
            critical = not name[0] & 0x20
            if not sound and (critical or name not in _HARMLESS):
                raise BrokenImage(f"the image's {name.decode()} chunk is damaged: its sum is wrong")
            if name in _NEEDED:
                self._add(name, start, end)
            elif critical:
                raise UnsupportedImage(
                    f"the image has a {name.decode()} chunk, which is not of the PNG standard: "
                    "save it as a standard PNG"
                )
            elif sound and name in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                self.text.append((name, data[start + 8 : end - 4]))
        header = self.body(b"IHDR")
        if len(header) != 13 or not self._pixels:
            raise BrokenImage("the image has no IHDR or no IDAT chunk: its header or pixels miss")
        width, height, depth, colour, packing, filtering, interlaced = _HEADER.unpack(header)
        self.size: tuple[int, int] = (width, height)
        self.depth: int = depth
        self.colour: int = colour
        self.interlaced: int = interlaced
        if (colour, depth) not in _MODES or packing or filtering or interlaced > 1:
            raise BrokenImage(
                f"the image's header is damaged: colour type {colour} with {depth} bits"
            )
        if colour == _PALETTE and len(self.body(b"PLTE")) not in range(3, 769, 3):
            raise BrokenImage("the image's palette is missing or damaged")

    def pixels(self, most_bytes: int) -> Iterator[bytes]:
        """The compressed pixels: each IDAT chunk, in pieces of at most so many bytes."""
        for start, end in self._pixels:
            for at in range(start, end, most_bytes):
                yield self.data[at : min(at + most_bytes, end)]

    def pixel_bytes(self) -> int:
        """What the pixels take unpacked, with the byte before each row that names its filter."""
        width, height = self.size
        bits = self.depth * _CHANNELS[self.colour]
        total = 0
        for x, y, across, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(width - x) // across), -(-(height - y) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * bits // 8))
        return total

    def transparent(self) -> tuple[int, ...] | None:
        """The samples of the transparent colour, of `depth` bits; None without one."""
        if b"tRNS" not in self._spans:
            return None
        count = {_GRAY: 1, _RGB: 3}.get(self.colour)
        body = self.body(b"tRNS")
        if count is None or len(body) < 2 * count:
            return None
        mask = (1 << self.depth) - 1
        return tuple(value & mask for value in struct.unpack_from(f">{count}H", body))

    def metadata(self) -> dict[str, bytes | str]:
        """What says how to turn the image, by Pillow's names: `exif` and `XML:com.adobe.xmp`."""
        found: dict[str, bytes | str] = {}
        texts = 0
        for name, body in self.text:
            if name == b"eXIf":
                found["exif"] = body
            elif body.startswith(_TURNING) and texts < _MAX_TEXTS:
                texts += 1
                with contextlib.suppress(ValueError, IndexError, zlib.error):
                    keyword, text = _text_of(name, body)
                    if keyword == "XML:com.adobe.xmp":
                        found[keyword] = text
                    else:
                        found.setdefault("exif", bytes.fromhex("".join(text.split("\n")[3:])))
        return found

    def _add(self, name: bytes, start: int, end: int) -> None:
        before = self._spans.get(name)
        if name == b"IDAT":
            self._pixels.append((start + 8, end - 4))
        if before is None:
            self._spans[name] = (start, end)
        elif name == b"IDAT" and before[1] == start:
            self._spans[name] = (before[0], end)
        else:
            raise BrokenImage(f"the image's {name.decode()} chunk stands in more than one place")

    def body(self, name: bytes) -> bytes:
        """What a chunk has in it; nothing if it is missing."""
        start, end = self._spans.get(name, (0, 12))
        return self.data[start + 8 : end - 4]


def _walk(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Name, start and end of each chunk before `IEND`, and whether its sum is right."""
    view = memoryview(data)
    at = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            return
        length, name = _CHUNK.unpack_from(data, at)
        end = at + 12 + length
        if name == b"IEND":
            return
        if not name.isalpha():  # of ASCII alone
            raise BrokenImage(f"the image is damaged: {name!r} is not the name of a PNG's chunk")
        if end > len(data):
            if name in _HARMLESS:
                return
            raise BrokenImage(f"the image is cut off in its {name.decode()} chunk: send all of it")
        yield (
            name,
            at,
            end,
            zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end]),
        )
        at = end
    raise BrokenImage(
        f"the image is in more than {_MAX_CHUNKS:,} pieces: encode it anew, in larger ones"
    )


def _text_of(name: bytes, body: bytes) -> tuple[str, str]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk, which is cut at `_MAX_TEXT_BYTES`."""
    keyword, _, text = body.partition(b"\0")
    packed = name == b"zTXt"
    if packed:
        text = text[1:]
    elif name == b"iTXt":
        packed = text[0] == 1
        text = text[2:].split(b"\0", 2)[2]
    if packed:
        text = zlib.decompressobj().decompress(text, _MAX_TEXT_BYTES)
    return keyword.decode("latin-1"), text[:_MAX_TEXT_BYTES].decode("utf-8", "replace")


def _bands(image: Image.Image) -> list[Image.Image]:
    """The image as bands of 8 bits; of 16 bits, the upper bytes."""
    if image.mode == "I;16":
        return [upper(image)]
    return list((image.convert("L") if image.mode == "1" else image).split())
