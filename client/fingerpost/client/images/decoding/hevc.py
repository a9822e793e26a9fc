"""How many HEVC pictures a HEIC has its decoder go through.

Some hundred bytes may be a whole further picture, as in an AVIF. Pictures are counted by their
first slices (ITU-T H.265, 7.3.1 and 7.3.6.1), in NAL units behind their lengths (ISO/IEC 14496-15,
8.3.3.1 and 8.3.3.2).
"""

from __future__ import annotations

from typing import Final

from fingerpost.client.images.decoding.heif_boxes import MAX_FRAMES, check_frames_of
from fingerpost.errors import UnsupportedImage

__all__ = ["check_frames"]

# NAL units of a picture: parameter sets, messages, slices, of which a level allows up to 600.
_MAX_UNITS: Final = 1024
# Bytes of a length: what every known encoder writes. The decoder is told so in `hvcC`.
_LENGTH_BYTES: Final = 4
_PARAMETERS: Final = b"hvcC"
_LENGTH_AT: Final = 21  # in the contents of that box


def check_frames(data: bytes) -> None:
    """Refuse a HEIC that has more pictures decoded than it shows: see `check_frames_of`.

    Raises:
        UnsupportedImage: also where lengths do not have four bytes.
    """
    check_frames_of("HEIC", data, _frames)
    at = data.find(_PARAMETERS)
    while at >= 0:
        settings = data[at + 4 : at + 5 + _LENGTH_AT]
        # Version 1; elsewhere the four letters are of a picture's data.
        if settings[:1] == b"\1" and (settings[-1] & 3) + 1 != _LENGTH_BYTES:
            raise UnsupportedImage("the HEIC has lengths that are not of 4 bytes: encode it anew")
        at = data.find(_PARAMETERS, at + 4)


def _frames(data: bytes, at: int, size: int) -> int:
    """The pictures among the NAL units of an item."""
    end, frames = min(at + size, len(data)), 0
    for _ in range(_MAX_UNITS):
        if at + _LENGTH_BYTES + 2 >= end or frames > MAX_FRAMES:
            return frames
        length = int.from_bytes(data[at : at + _LENGTH_BYTES])
        at += _LENGTH_BYTES
        coded = data[at] >> 1 & 63 < 32  # a slice
        frames += coded and data[at + 2] >> 7  # the first one of a picture
        at += length
    raise UnsupportedImage(f"a picture of the HEIC is in more than {_MAX_UNITS:,} pieces")
