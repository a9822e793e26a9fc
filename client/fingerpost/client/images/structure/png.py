"""The chunks of a PNG (ISO/IEC 15948, clause 5)."""

from __future__ import annotations

import struct
from typing import Final

from fingerpost.errors import BrokenImage

__all__ = ["check_png"]

# Each may unfold to a megabyte, a millisecond's work. The standard has one profile; programs that
# write texts write some tens.
_MAX_COMPRESSED: Final = 256
# 20 MB of pixels in chunks of 1 KB are 20,000; libpng writes 8 KB, and most others more.
_MAX_CHUNKS: Final = 1 << 15

_HEAD: Final = struct.Struct(">I4s")
_COMPRESSED: Final = frozenset((b"iCCP", b"zTXt", b"iTXt"))


def check_png(data: bytes, max_pixels: int) -> None:
    """Refuse a PNG with too many chunks, or with too many compressed ones beside its pixels.

    Raises:
        BrokenImage: see `check_structure`.
    """
    at, end, compressed = 8, len(data) - 8, 0
    for _ in range(_MAX_CHUNKS):
        if at > end:
            return
        length, name = _HEAD.unpack_from(data, at)
        if name in _COMPRESSED:
            compressed += 1
            if compressed > _MAX_COMPRESSED:
                raise BrokenImage(
                    f"the image has more than {_MAX_COMPRESSED} compressed texts and colour "
                    "profiles: encode it anew, without metadata"
                )
        elif name == b"IEND":
            return
        at += length + 12
    raise BrokenImage(
        f"the image is in more than {_MAX_CHUNKS:,} chunks: encode it anew, in larger ones"
    )
