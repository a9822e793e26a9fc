"""Small images at random that repeat something which decoders work on: for fuzzing."""

from __future__ import annotations

import random
import zlib

from tests.support.hostile_images import (
    TEXT,
    bare,
    bmp_rle,
    jpeg,
    png,
    refinements,
    scan,
    segment,
)
from tests.support.pictures import png_chunk
from tests.support.tiffs import strips, tiles

__all__ = ["costly"]


def costly(rng: random.Random) -> bytes:
    """A small image of at most 4 megapixels that repeats something its decoder works on."""
    many = rng.choice((1, 3, 18, 21, 99, 101, 2000))
    side = rng.choice((8, 200, 1000, 2000))
    match rng.randrange(7):
        case 0:
            frame, spectral = rng.choice(
                ((0xC0, (0, 63, 0)), (0xC1, (0, 63, 0)), (0xC2, (0, 0, 0)), (0xC3, (1, 0, 0)),
                 (0xC9, (0, 63, 0)), (0xCA, (0, 0, 0)))
            )  # fmt: skip
            restart = segment(0xDD, rng.choice((b"\0\1", b"\0\0", b"\1\0")))
            scans = [scan(rng.randint(1, 3), spectral, rng.randbytes(3)) for _ in range(many)]
            before = rng.choice((b"", restart))
            return jpeg(b"".join(scans), frame=frame, size=(side, side), before=before)
        case 1:
            return refinements(many, side)
        case 2:
            marker = rng.choice((0xE1, 0xED, 0xDB, 0xC4, 0xFE, 0xE2))
            body = rng.choice(
                (b"Exif\0\0II*\0", b"Photoshop 3.0\0" + b"8BIM" * 9, bytes(65), b"ICC_PROFILE\0")
            )
            return bare(*[(marker, body)] * many)
        case 3:
            name = rng.choice((b"zTXt", b"iCCP", b"IDAT", b"tEXt", b"fdAT"))
            return png(png_chunk(name, b"Raw profile type exif" + TEXT[1:]) * min(many, 150))
        case 4:
            codings = (1, 5, 7, 8, 32773, 34925, 50000)
            data = zlib.compress(bytes(side)) + bytes(100)
            size = (side, min(many, 2000))
            return strips(min(many, size[1]), rng.choice(codings), data, size=size,
                          fill_order=rng.choice((1, 2)))  # fmt: skip
        case 5:
            return tiles(side, rng.choice((1, side)), 16 * rng.randint(1, 9), 16 * many)
        case _:
            run = rng.choice((b"\1\0\0\0", b"\xff\1", b"\0\2\1\1"))
            return bmp_rle(run * many * 10, (side, side), rng.choice((1, 2)))
