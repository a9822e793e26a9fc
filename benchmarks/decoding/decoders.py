"""`python -m benchmarks.decoding.decoders NAME FILE THREADS SECONDS`: one decoder, alone.

In a process of its own, because memory that one decoder leaves saves the next one page faults.
Prints the milliseconds for an image: processor time and wall-clock time, while each of the threads
decodes its own images.
"""

from __future__ import annotations

import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images import ImageConfig, prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    Decoder = Callable[[bytes], np.ndarray]

__all__ = ["DECODERS", "SIDE"]

SIDE = 224
_BILINEAR = Image.Resampling.BILINEAR


def fingerpost() -> Decoder:
    wanted, config = ImageInput(height=SIDE, width=SIDE, channels=3), ImageConfig()
    return lambda data: np.asarray(prepare(data, wanted, config))


def plain_pillow() -> Decoder:
    return lambda data: _resized(Image.open(io.BytesIO(data)).convert("RGB"))


def plain_pillow_default_filter() -> Decoder:
    return lambda data: np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE))  # bicubic
    )


def pillow_draft_2x() -> Decoder:
    """Decode in draft mode, at twice the size or more."""

    def decode(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        return _resized(image)

    return decode


def simplejpeg() -> Decoder:
    import simplejpeg

    def decode(data: bytes) -> np.ndarray:
        least = SIDE * 5 // 4
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least)
        return _resized(Image.fromarray(pixels))

    return decode


def pyturbojpeg() -> Decoder:
    from turbojpeg import TJPF_RGB, TurboJPEG

    turbo = TurboJPEG()

    def decode(data: bytes) -> np.ndarray:
        width, height, *_ = turbo.decode_header(data)
        by = _reduction(width, height)
        pixels = turbo.decode(data, pixel_format=TJPF_RGB, scaling_factor=(1, by))
        return _resized(Image.fromarray(pixels))

    return decode


def opencv() -> Decoder:
    import cv2

    cv2.setNumThreads(1)
    flags = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flags |= {1: cv2.IMREAD_COLOR, 8: cv2.IMREAD_REDUCED_COLOR_8}

    def decode(data: bytes) -> np.ndarray:
        by = _reduction(*Image.open(io.BytesIO(data)).size)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags[by])
        pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    return decode


def pyvips() -> Decoder:
    import pyvips

    pyvips.cache_set_max(0)
    return lambda data: pyvips.Image.thumbnail_buffer(data, SIDE, height=SIDE, size="force").numpy()


def tensorflow() -> Decoder:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)

    def decode(data: bytes) -> np.ndarray:
        by = _reduction(*Image.open(io.BytesIO(data)).size)
        pixels = tf.io.decode_jpeg(data, channels=3, ratio=by, dct_method="INTEGER_ACCURATE")
        return _resized(Image.fromarray(pixels.numpy()))

    return decode


DECODERS: dict[str, Callable[[], Decoder]] = {
    each.__name__.replace("_", " "): each
    for each in (
        fingerpost,
        plain_pillow,
        plain_pillow_default_filter,
        pillow_draft_2x,
        simplejpeg,
        pyturbojpeg,
        opencv,
        pyvips,
        tensorflow,
    )
}


def _resized(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((SIDE, SIDE), _BILINEAR))


def _reduction(width: int, height: int) -> int:
    return next((by for by in (8, 4, 2) if by * 1.25 * SIDE <= min(width, height)), 1)


def main() -> None:
    """Decode for some seconds, and print the times."""
    name, path, threads, seconds = sys.argv[1:]
    decode, data = DECODERS[name](), Path(path).read_bytes()

    def work(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            decode(data)
            done += 1
        return done

    # One thread is the main one, as in a script, where glibc returns large memory each time.
    with ThreadPoolExecutor(int(threads)) as pool:
        spread = map if threads == "1" else pool.map
        for length in (0.2, float(seconds)):  # the first to warm up
            began, spent = time.perf_counter(), time.process_time()
            done = sum(spread(work, [began + length] * int(threads)))
            took, spent = time.perf_counter() - began, time.process_time() - spent
    print(1000 * spent / done, 1000 * took / done)


if __name__ == "__main__":
    main()
