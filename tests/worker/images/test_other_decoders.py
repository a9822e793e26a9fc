"""Pillow with our rules, OpenCV and TensorFlow see the same in generated pictures.

OpenCV and TensorFlow put nothing on white: of both, the samples with alpha are taken, and blended
here. What they do not read, or read wrong, is named where it is left out.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fingerpost.errors import BrokenImage, UnsupportedImage
from fingerpost.worker.images import ImageConfig, decode, reencode
from tests.support.later import later
from tests.support.pictures import difference, save
from tests.support.raw_images import CHANNELS, png, tiff_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = later("tensorflow")

pytestmark = pytest.mark.slow
BOUNDED = settings(max_examples=120, deadline=None, derandomize=True)

PNG_KINDS = [
    *((depth, 0) for depth in (1, 2, 4, 8, 16)),
    *((depth, 2) for depth in (8, 16)),
    *((depth, 3) for depth in (1, 2, 4, 8)),
    *((depth, colour) for depth in (8, 16) for colour in (4, 6)),
]


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """Any depth, colour type, transparency and interlacing."""
    depth, colour = draw(st.sampled_from(PNG_KINDS))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    # Few values, so that a transparent one is met.
    values = rng.integers(0, 1 << depth, 4)
    samples = rng.choice(values, (height, width, CHANNELS[colour]))
    chunks = []
    if colour == 3:
        chunks.append((b"PLTE", rng.bytes(3 << depth)))
    if draw(st.booleans()) and colour in (0, 2, 3):
        key = samples[0, 0].tolist()
        chunks.append(
            (b"tRNS", rng.bytes(1 << depth) if colour == 3 else struct.pack(f">{len(key)}H", *key))
        )
    return png(
        samples,
        depth,
        colour,
        before=chunks,
        interlaced=draw(st.booleans()),
        idat_bytes=draw(st.sampled_from([1 << 20, 11])),
    )


def on_white(samples: NDArray[np.uint8]) -> NDArray[np.float64]:
    """RGB of RGBA, as a browser shows it."""
    alpha = samples[..., 3:].astype(float) / 255
    return samples[..., :3] * alpha + 255 * (1 - alpha)


def is_keyed(data: bytes) -> bool:
    return b"tRNS" in data[: data.index(b"IDAT")]


def by_tensorflow(data: bytes) -> NDArray[np.float64]:
    """Of pixels of fewer than 8 bits without transparency, the alpha that it adds is not opaque."""
    if is_keyed(data) or data[25] in (4, 6):
        return on_white(tf.image.decode_png(data, channels=4).numpy())
    return tf.image.decode_png(data, channels=3).numpy().astype(float)


def by_opencv(data: bytes) -> NDArray[np.float64] | None:
    """None where it cannot read them."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None:
        return None
    made = (read // (256 if read.dtype == np.uint16 else 1)).astype(np.uint8)
    if made.ndim == 2:
        return np.repeat(made[..., None], 3, axis=2).astype(float)
    if made.shape[2] == 4:
        return on_white(made[..., [2, 1, 0, 3]])
    return made[..., ::-1].astype(float)


def ours(data: bytes) -> NDArray[np.uint8]:
    return decode(data, size=None, channels=3)


def farthest(left: NDArray[np.uint8], right: NDArray[np.float64]) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())


@BOUNDED
@given(data=pngs())
def test_png(data: bytes) -> None:
    seen = ours(data)
    assert farthest(seen, by_tensorflow(data)) <= 1
    theirs = by_opencv(data)
    assert theirs is not None
    if not (is_keyed(data) and data[25] == 0):  # in gray, OpenCV knows no transparent value
        assert farthest(seen, theirs) <= 1


@BOUNDED
@given(data=pngs(), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_png_with_a_flipped_bit_is_the_same_picture_or_refused(
    data: bytes, place: float, bit: int
) -> None:
    broken = bytearray(data)
    broken[int(place * len(data))] ^= 1 << bit
    try:
        seen = ours(bytes(broken))
    except (BrokenImage, UnsupportedImage):
        return
    assert np.array_equal(seen, ours(data))


@BOUNDED
@given(data=pngs())
def test_what_a_graph_gets_that_decodes_itself(data: bytes) -> None:
    sent = reencode(data, ImageConfig())
    assert np.array_equal(tf.io.decode_jpeg(sent, channels=3).numpy(), ours(data))


@BOUNDED
@given(
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    progressive=st.booleans(),
    subsampling=st.sampled_from([0, 1, 2]),
    restarts=st.sampled_from([0, 1]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 1 << 16),
)
def test_jpeg(
    mode: str, progressive: bool, subsampling: int, restarts: int, size: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 255, (3, 4, 3), np.uint8))
    picture = soft.resize(size, Image.Resampling.BICUBIC).convert(mode)
    data = save(
        picture,
        "JPEG",
        progressive=progressive,
        restart_marker_blocks=restarts,
        quality=90,
        **({} if mode == "L" else {"subsampling": subsampling}),
    )
    seen = ours(data)
    sent = reencode(data, ImageConfig())
    assert difference(seen, tf.io.decode_jpeg(sent, channels=3).numpy()).mean() < 2
    theirs = by_opencv(data)
    assert theirs is not None
    if mode != "CMYK":  # OpenCV converts inks by another formula
        assert np.abs(seen - theirs).mean() < 2


@BOUNDED
@given(
    bits=st.sampled_from([1, 8, 16]),
    photometric=st.sampled_from([0, 1, 2]),
    order=st.sampled_from("<>"),
    deflated=st.booleans(),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 1 << 16),
)
def test_tiff(
    bits: int, photometric: int, order: str, deflated: bool, size: tuple[int, int], seed: int
) -> None:
    """TensorFlow reads none; OpenCV not 2, 4 and 12 bits, and 16 bits as if 0 were black."""
    if photometric == 2 and bits == 1:
        bits = 8
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 1 << bits, (*size, 3 if photometric == 2 else 1))
    data = tiff_of(samples, bits, photometric, order=order, deflated=deflated)
    theirs = by_opencv(data)
    assert theirs is not None
    if (bits, photometric) == (16, 0):
        theirs = 255 - theirs
    assert farthest(ours(data), theirs) <= 1


@BOUNDED
@given(
    mode=st.sampled_from(["1", "P", "L", "RGB"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 1 << 16),
)
def test_bmp(mode: str, size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).convert(mode)
    data = save(picture, "BMP")
    theirs = by_opencv(data)
    assert theirs is not None
    assert farthest(ours(data), theirs) == 0
    if mode == "RGB":  # all that TensorFlow reads
        assert np.array_equal(ours(data), tf.image.decode_bmp(data, channels=3).numpy())


@BOUNDED
@given(
    size=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    box=st.tuples(*[st.integers(0, 4)] * 2),
    transparent=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
def test_gif(size: tuple[int, int], box: tuple[int, int], transparent: bool, seed: int) -> None:
    """TensorFlow leaves black what we put on white: compared is what the frame shows."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).quantize(16)
    data = bytearray(save(picture, "GIF", **({"transparency": 3} if transparent else {})))
    across, down = size[1] + box[0], size[0] + box[1]
    data[6:10] = struct.pack("<HH", across, down)
    seen = ours(bytes(data))
    colours = np.asarray(picture.convert("RGB"))
    expected = np.full((down, across, 3), 255, np.uint8)
    expected[: size[0], : size[1]] = colours
    if transparent:
        expected[: size[0], : size[1]][np.asarray(picture) == 3] = 255
    assert np.array_equal(seen, expected)
    if not transparent:
        theirs = tf.image.decode_gif(bytes(data)).numpy()[0]
        assert np.array_equal(seen[: size[0], : size[1]], theirs[: size[0], : size[1]])
