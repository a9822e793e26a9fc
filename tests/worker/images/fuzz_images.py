"""`python -W error -m tests.worker.images.fuzz_images --seconds N`: mutated images of every kind.

Each gives pixels of the right shape or an `ImageError`: no other exception, no warning, and soon.
The seed of a failure is printed; `--seed S --count 1` does it again.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import sys
import time
from collections import Counter

import numpy as np

from fingerpost.errors import ImageError
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.manifest import Filter, Preprocessing, Resize
from tests.support.costly_images import costly
from tests.support.pictures import specimens

__all__ = ["LONGEST_S", "check", "mutate"]

# Processor seconds for one image of at most 4 megapixels.
LONGEST_S = 2.0
LIMITS = ImageConfig(max_pixels=4_000_000)
INTERESTING = (0, 1, 2, 3, 4, 6, 8, 16, 0x7F, 0x80, 0xD8, 0xD9, 0xDA, 0xFE, 0xFF)


def mutate(source: bytes, rng: random.Random) -> bytes:
    """Flip, set, cut, repeat, move and insert bytes, one to six times."""
    data = bytearray(source)
    for _ in range(rng.randint(1, 6)):
        at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        end = min(end, at + rng.choice((1, 4, 16, 64, 4096)))
        match rng.randrange(9):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2 | 3 if at < len(data):
                data[at] = rng.choice(INTERESTING)
            case 4:  # a number of the header
                at = min(at, rng.randrange(200))
                data[at : at + 4] = rng.choice(INTERESTING).to_bytes(1, "big") * rng.randint(1, 4)
            case 5:
                data[at:at] = data[at:end] * rng.choice((1, 1, 2, 50))
            case 6:
                del data[at:end]
            case 7:
                data[at:at] = rng.randbytes(rng.randint(1, 64))
            case 8 if rng.random() < 0.3:
                del data[at:]
        if not data:
            break
    return bytes(data)


def check(data: bytes, rng: random.Random) -> str:
    """Decode as a random model wants it; the name of the error, or 'pixels'.

    Raises:
        AssertionError: pixels of another shape, or too slow.
    """
    wanted = ImageInput(
        height=rng.randint(1, 40),
        width=rng.randint(1, 40),
        channels=rng.choice((1, 3)),
        encoded=rng.random() < 0.2,
        preprocessing=Preprocessing(
            resize=rng.choice(list(Resize)),
            filter=rng.choice(list(Filter)),
            crop_fraction=rng.choice((1.0, 0.5)),
        ),
    )
    began = time.thread_time()
    try:
        made = prepare(data, wanted, LIMITS)
    except ImageError as error:
        outcome = type(error).__name__
    else:
        outcome = "pixels"
        if isinstance(made, np.ndarray):
            assert made.shape == (wanted.height, wanted.width, wanted.channels), made.shape
            assert made.dtype == np.uint8, made.dtype
        else:
            assert wanted.encoded
            assert made[:3] in (b"\xff\xd8\xff", b"\x89PN"), made[:8]
    took = time.thread_time() - began
    assert took < LONGEST_S, f"{took:.1f} s"
    return outcome


def main() -> int:
    """Run for so long, or so many; print what came out, and the process' memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=sys.maxsize)
    chosen = parser.parse_args()
    sources = specimens()
    names, outcomes = list(sources), Counter[str]()
    until, next_word = time.monotonic() + chosen.seconds, time.monotonic() + 30
    for seed in itertools.count(chosen.seed):
        if time.monotonic() > until or seed >= chosen.seed + chosen.count:
            break
        rng = random.Random(seed)
        name = rng.choice(names)
        try:
            data = costly(rng) if rng.random() < 0.2 else sources[name]
            outcomes[check(mutate(data, rng) if rng.random() < 0.9 else data, rng)] += 1
        except BaseException:
            print(f"seed {seed}, of {name}:", flush=True)
            raise
        if time.monotonic() > next_word:
            next_word += 30
            _tell(outcomes)
    _tell(outcomes)
    return 0


def _tell(outcomes: Counter[str]) -> None:
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{outcomes.total()} images, peak {peak_mb} MB: {dict(outcomes)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
