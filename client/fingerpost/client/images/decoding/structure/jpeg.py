"""The segments and scans of a JPEG (ITU T.81, annex B), read as libjpeg reads them."""

from __future__ import annotations

import re
import struct
from itertools import islice
from typing import Final

from fingerpost.errors import BrokenImage, ImageTooLarge, UnsupportedImage

__all__ = ["MAX_PASSES", "MAX_SCANS", "check_jpeg", "scans_in"]

# Each scan makes the decoder go over all blocks again, be it of ten bytes. libjpeg writes 10 for
# colours, 6 for gray and 18 for CMYK (`jpeg_simple_progression`: 2 + 4 for each component), a
# sequential file in planes has 3 or 4. libtiff ends at 100, libjpeg-turbo's API, on request, at 500
# (`TJFLAG_LIMITSCANS`).
MAX_SCANS: Final = 100
# How often as many pixels as the largest image has may be gone over: enough for libjpeg's 18.
MAX_PASSES: Final = 20

# Before the first scan, where Pillow reads segment by segment in Python. 20 MB hold 306 full ones,
# and a colour profile may have 255.
_MAX_SEGMENTS: Final = 4096
# Pillow appends each to all before it. The standard has one; 64 hold 4 MB.
_MAX_EXIF_SEGMENTS: Final = 64
# Pillow reads each in Python. Photoshop's own numbers allow some 1,000 paths and few others.
_MAX_RESOURCES: Final = 4096
# Pillow reads each table in Python. Four tables have 516 bytes at most.
_MAX_TABLE_BYTES: Final = 1 << 16

# Pillow reads what is between segments byte by byte; encoders pad them with a few.
_MAX_BETWEEN_BYTES: Final = 1 << 16

_FRAME: Final = struct.Struct(">xHHB")
_NO_MARKER: Final = frozenset((0x00, 0xFF))
# The last of the bytes 0xFF that fill up to a marker: `\xff+` takes the square of their number.
_MARKER: Final = re.compile(rb"\xff([^\x00\xff])")
_IN_SCAN: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SOS: Final = re.compile(rb"\xff\xda")
_RESOURCE: Final = re.compile(rb"8BIM")

_SEQUENTIAL, _PROGRESSIVE, _LOSSLESS = frozenset((0xC0, 0xC1)), 0xC2, 0xC3
_UNREAD: Final = frozenset((0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_TABLES: Final = frozenset((0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)))
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xD8)))


def check_jpeg(data: bytes, max_pixels: int) -> None:
    """Refuse a JPEG whose header or whose scans cost more than any honest one's.

    Raises:
        BrokenImage, ImageTooLarge, UnsupportedImage: see `check_structure`.
    """
    at, frame, pixels, components = 2, 0, 0, 0
    segments = exif = resources = tables = between = 0
    while True:
        head = data[at : at + 4]
        if len(head) == 4 and head[0] == 0xFF and head[1] not in _NO_MARKER:
            marker, at = head[1], at + 2
        else:
            found = _MARKER.search(data, at, at + _MAX_BETWEEN_BYTES + 2)
            if found is None and data.find(b"\xff\xda", at) < 0:
                raise BrokenImage("the image has no scan: its pixels are missing, send all of it")
            if found is None or between + found.end() - 2 - at > _MAX_BETWEEN_BYTES:
                raise _pieces("bytes between its segments", _MAX_BETWEEN_BYTES)
            between += found.end() - 2 - at
            marker, at = found[1][0], found.end()
            head = data[at - 2 : at + 2]
        segments += 1
        if segments > _MAX_SEGMENTS:
            raise _pieces("segments before its pixels", _MAX_SEGMENTS)
        if marker in _ALONE:
            continue
        length = max(2, int.from_bytes(head[2:], "big"))
        body, end = at + 2, at + length
        if marker == 0xDA:
            break
        if marker == 0xE1:
            exif += data.startswith(b"Exif\0\0", body, end)
            if exif > _MAX_EXIF_SEGMENTS:
                raise _pieces("segments of EXIF", _MAX_EXIF_SEGMENTS)
        elif marker == 0xED:
            resources += sum(1 for _ in _RESOURCE.finditer(data, body, end))
            if resources > _MAX_RESOURCES:
                raise _pieces("Photoshop resources", _MAX_RESOURCES)
        elif marker == 0xDB:
            tables += length
            if tables > _MAX_TABLE_BYTES:
                raise _pieces("bytes of quantization tables", _MAX_TABLE_BYTES)
        elif marker in _UNREAD:
            raise UnsupportedImage(
                "the JPEG has arithmetic or hierarchical coding, which browsers do not read, "
                "either: encode it with Huffman coding"
            )
        elif marker in _SEQUENTIAL or marker in (_PROGRESSIVE, _LOSSLESS):
            frame = marker
            if len(data) >= body + 6:
                height, width, components = _FRAME.unpack_from(data, body)
                pixels = height * width
        elif marker not in _TABLES:
            # libjpeg ends here, too. Pillow would go on, and see another file than is checked here.
            raise BrokenImage(
                f"the image has a marker 0x{marker:02X} in its header: encode it anew"
            )
        at = end
    if frame in _SEQUENTIAL and int.from_bytes(data[body : body + 1], "big") == components:
        return  # all in one scan, after which the decoder ends
    if not 0 < pixels <= max_pixels:
        return  # which the caller refuses
    allowed = min(MAX_SCANS, MAX_PASSES * max_pixels // pixels)
    if next(islice(_SOS.finditer(data, end), allowed - 1, None), None) is None:
        return  # counted with what only looks like a scan: in metadata, in a film behind the image
    scans = scans_in(data, end, allowed)
    if scans > MAX_SCANS:
        raise _pieces("scans", MAX_SCANS)
    if scans > allowed:
        raise ImageTooLarge(
            f"the image has more than {allowed} scans of {pixels / 1e6:.0f} megapixels: "
            "send a smaller one, or one that is not progressive"
        )


def scans_in(data: bytes, at: int, most: int) -> int:
    """How many scans a JPEG has, those up to `at` as one; counted to one more than `most`.

    Raises:
        BrokenImage: too many other segments between the scans.
    """
    scans, segments = 1, 0
    while scans <= most:
        found = _IN_SCAN.search(data, at)
        if found is None or found[1] == b"\xd9":
            break
        marker, at = found[1][0], found.end()
        scans += marker == 0xDA
        segments += 1
        if segments > _MAX_SEGMENTS:
            raise _pieces("segments between its scans", _MAX_SEGMENTS)
        if marker not in _ALONE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans


def _pieces(what: str, most: int) -> BrokenImage:
    return BrokenImage(f"the image has more than {most:,} {what}: encode it anew")
