"""What hostile requests of all protocols are made of: images with wrong bytes."""

from __future__ import annotations

import random
from functools import cache

from tests.support.colours import encoded
from tests.support.costly_images import costly

__all__ = ["HANG_S", "Wrong", "image", "mutated", "seeds"]

# An answer that takes longer does not come.
HANG_S = 15.0


class Wrong(Exception):
    """An answer that must not be."""


@cache
def seeds() -> tuple[bytes, ...]:
    """Real images of all formats that are read."""
    forms = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
    return tuple(encoded(colour, (40, 30), form) for form in forms for colour in ("red", "blue"))


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The same bytes with some flipped, cut, repeated or put in."""
    out = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 5, 20))):
        if not out:
            break
        at = rng.randrange(len(out))
        match rng.randrange(5):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                del out[at : at + rng.randrange(1, 50)]
            case 2:
                out[at:at] = out[at : at + rng.randrange(1, 50)]
            case 3:
                out[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"))
    return bytes(out)


def image(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return costly(rng)
    return mutated(rng, rng.choice(seeds()))
