"""How many AV1 frames an AVIF has its decoder go through.

A frame that is never shown takes some hundred bytes, and as long as a picture: 20 MB of them could
take hours. The frames are counted by their OBUs (AV1 specification, 5.3).
"""

from __future__ import annotations

from typing import Final

from fingerpost.client.images.decoding.heif_boxes import MAX_FRAMES, check_frames_of
from fingerpost.errors import UnsupportedImage

__all__ = ["check_frames"]

# OBUs of a picture: a delimiter, a sequence header, metadata, groups of tiles.
_MAX_OBUS: Final = 1024
_FRAMES: Final = frozenset({3, 6})  # OBU_FRAME_HEADER, OBU_FRAME


def check_frames(data: bytes) -> None:
    """Refuse an AVIF that has more frames decoded than a picture has: see `check_frames_of`."""
    check_frames_of("AVIF", data, _frames)


def _frames(data: bytes, at: int, size: int) -> int:
    """The frames among the OBUs of a picture."""
    end, frames = min(at + size, len(data)), 0
    for _ in range(_MAX_OBUS):
        if at >= end or frames > MAX_FRAMES:
            return frames
        header = data[at]
        frames += (header >> 3 & 15) in _FRAMES
        at += 2 if header & 4 else 1
        if not header & 2:  # goes on to the end
            return frames
        length = 0
        for place in range(8):
            byte = data[at]
            length |= (byte & 127) << 7 * place
            at += 1
            if byte < 128:
                break
        at += length
    raise UnsupportedImage(f"a picture of the AVIF is in more than {_MAX_OBUS:,} pieces")
