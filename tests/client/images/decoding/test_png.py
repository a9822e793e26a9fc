"""PNG: every depth with its transparent colour, odd chunks, and damage that is always found."""

from __future__ import annotations

import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.pictures import photo, png_chunk, save
from tests.support.raw_images import CHANNELS, SIGNATURE, png, without_chunk

from fingerpost.client.images.decoding import (
    ImageConfig,
    guarded,
    load,
    open_image,
    to_mode,
    turn_of,
)
from fingerpost.errors import BrokenImage, UnsupportedImage

GRAY = np.arange(48, dtype=np.int64).reshape(6, 8, 1)


def shown(data: bytes, mode: str = "RGB") -> NDArray[np.uint8]:
    """What a browser shows, uint8 `[height, width, channels]`."""
    return np.asarray(guarded(lambda: to_mode(load(open_image(data, ImageConfig())), mode)))


def random_samples(depth: int, colour: int, seed: int) -> NDArray[np.int64]:
    """Few values, so that the transparent one is met, and neighbours of it."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 1 << depth, 3)
    near = np.concatenate([values, values ^ 1, values ^ (1 << (depth - 1))])
    return rng.choice(near, (7, 9, CHANNELS[colour]))


def eight_bits(samples: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    return samples >> 8 if depth == 16 else samples * 255 // ((1 << depth) - 1)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("stray_bits", [0, 0xFFFF])
@pytest.mark.parametrize(
    ("depth", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)]
)
def test_the_transparent_colour_is_compared_at_full_depth(
    depth: int, colour: int, stray_bits: int, interlaced: bool
) -> None:
    """Bits above the depth do not count (W3C PNG, 11.3.1.1)."""
    for seed in range(8):
        samples = random_samples(depth, colour, seed)
        key = samples[3, 4]
        stray = stray_bits & ~((1 << depth) - 1)
        chunk = struct.pack(f">{len(key)}H", *(int(value) | stray for value in key))
        data = png(samples, depth, colour, before=[(b"tRNS", chunk)], interlaced=interlaced)
        clear = (samples == key).all(axis=2, keepdims=True)
        assert clear.any()
        expected = np.where(clear, 255, eight_bits(samples, depth))
        assert np.array_equal(shown(data), np.broadcast_to(expected, (7, 9, 3))), seed


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_keeps_its_transparency(depth: int) -> None:
    rng = np.random.default_rng(depth)
    colours = rng.integers(0, 256, (1 << depth, 3))
    alpha = rng.choice([0, 128, 255], 1 << depth)
    samples = rng.integers(0, 1 << depth, (7, 9, 1))
    data = png(
        samples,
        depth,
        3,
        before=[(b"PLTE", bytes(colours.flatten().tolist())), (b"tRNS", bytes(alpha.tolist()))],
    )
    cover = alpha[samples] / 255
    expected = colours[samples[..., 0]] * cover + 255 * (1 - cover)
    assert np.abs(shown(data) - expected).max() <= 1


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [4, 6])
def test_a_transparent_colour_beside_alpha_does_not_count(depth: int, colour: int) -> None:
    samples = random_samples(depth, colour, 0)
    key = struct.pack(">3H", *[int(samples[0, 0, 0])] * 3)
    plain = png(samples, depth, colour)
    assert np.array_equal(shown(png(samples, depth, colour, before=[(b"tRNS", key)])), shown(plain))
    alpha = eight_bits(samples[..., -1:], depth) / 255
    expected = eight_bits(samples[..., :-1], depth) * alpha + 255 * (1 - alpha)
    assert np.abs(shown(plain) - expected).max() <= 1


def wrong_sum(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


ODD = {
    "iCCP of 2 MB": png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2 << 20))),
    "iCCP, no zlib": png_chunk(b"iCCP", b"x\0\0" + b"rubbish"),
    "iCCP, unknown packing": png_chunk(b"iCCP", b"x\0\x07" + zlib.compress(b"profile")),
    "gAMA, short": png_chunk(b"gAMA", b"\0\1"),
    "cHRM, short": png_chunk(b"cHRM", b"\0\1"),
    "pHYs, short": png_chunk(b"pHYs", b"\0"),
    "sRGB, empty": png_chunk(b"sRGB", b""),
    "eXIf, rubbish": png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "acTL, short": png_chunk(b"acTL", b"\0\0"),
    "fcTL, short": png_chunk(b"fcTL", b"\0\0"),
    "tEXt, wrong sum": wrong_sum(png_chunk(b"tEXt", b"a\0b")),
    "zTXt, no zlib": png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0rubbish"),
    "iTXt, cut": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
    "text of 100 MB": png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000), 9)) * 100,
    "tRNS, short": png_chunk(b"tRNS", b"\0"),
    "bKGD, wrong sum": wrong_sum(png_chunk(b"bKGD", b"\0\0")),
    "unknown, of a program": png_chunk(b"prVt", b"anything"),
}


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("name", ODD)
def test_odd_chunks_beside_sound_pixels_do_not_count(name: str, place: str) -> None:
    data = png(GRAY, 8, 0)
    at = 33 if place == "before" else len(data) - 12
    odd = data[:at] + ODD[name] + data[at:]
    assert np.array_equal(shown(odd, "L"), GRAY[..., 0])
    assert turn_of(open_image(odd, ImageConfig())) is None


def test_every_flipped_bit_of_the_pixels_is_found() -> None:
    """In data, name, length and sum, in one chunk or in several."""
    flips = 0
    for idat_bytes in (1 << 20, 16):
        data = png(
            random_samples(8, 2, 0), 8, 2, before=[(b"tEXt", b"a\0b")], idat_bytes=idat_bytes
        )
        start, end = data.index(b"IDAT") - 4, data.rindex(b"IEND") - 4
        right = shown(data)
        for place, bit in itertools.product(range(start, end), range(8)):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            with pytest.raises((BrokenImage, UnsupportedImage)):
                shown(bytes(broken))
            flips += 1
        assert np.array_equal(shown(data), right)
    assert flips > 1000


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_anywhere_never_gives_other_pixels(seed: int) -> None:
    data = png(random_samples(8, 3, seed) % 4, 8, 3, before=[(b"PLTE", bytes(range(12)))])
    right, rng = shown(data), random.Random(seed)
    for _ in range(100):
        broken = bytearray(data)
        place = rng.randrange(8, len(data))
        broken[place] ^= 1 << rng.randrange(8)
        try:
            assert np.array_equal(shown(bytes(broken)), right)
        except (BrokenImage, UnsupportedImage):
            continue


IDAT = png_chunk(b"IDAT", zlib.compress(b"\0\0\0" * 4))


def with_header(*values: int, chunks: bytes = IDAT) -> bytes:
    return SIGNATURE + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *values)) + chunks


@pytest.mark.parametrize(
    "data",
    [
        with_header(2, 4, 3, 0, 0, 0, 0),
        with_header(2, 4, 4, 2, 0, 0, 0),
        with_header(2, 4, 16, 3, 0, 0, 0),
        with_header(2, 4, 8, 5, 0, 0, 0),
        with_header(2, 4, 8, 0, 1, 0, 0),
        with_header(2, 4, 8, 0, 0, 1, 0),
        with_header(2, 4, 8, 0, 0, 0, 2),
        with_header(0, 4, 8, 0, 0, 0, 0),
        with_header(2, 4, 8, 3, 0, 0, 0),
        with_header(2, 4, 8, 3, 0, 0, 0, chunks=png_chunk(b"PLTE", bytes(4)) + IDAT),
        with_header(2, 4, 8, 3, 0, 0, 0, chunks=IDAT + png_chunk(b"PLTE", bytes(3))[:-1] + b"\0"),
        with_header(2, 4, 8, 0, 0, 0, 0, chunks=b""),
        with_header(2, 5, 8, 0, 0, 0, 0),
        with_header(2, 4, 8, 0, 0, 0, 0, chunks=IDAT + png_chunk(b"tEXt", b"a\0b") + IDAT),
        with_header(2, 4, 8, 0, 0, 0, 0, chunks=wrong_sum(png_chunk(b"tRNS", b"\0\0")) + IDAT),
        with_header(2, 4, 8, 0, 0, 0, 0) + png_chunk(b"IHDR", bytes(13)),
        SIGNATURE + IDAT,
        SIGNATURE,
        without_chunk(save(photo()), b"IDAT"),
    ],
)
def test_a_damaged_picture_is_broken(data: bytes) -> None:
    with pytest.raises(BrokenImage):
        shown(data)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (4, 3), (8, 2), (16, 6), (16, 0)])
def test_missing_rows_are_damage_and_black_ones_are_not(
    depth: int, colour: int, interlaced: bool
) -> None:
    palette = [(b"PLTE", bytes(48))] if colour == 3 else []
    for height, width in ((7, 9), (1, 1), (2, 5), (5, 2), (300, 300)):
        black = np.zeros((height, width, CHANNELS[colour]), np.int64)
        data = png(black, depth, colour, before=palette, interlaced=interlaced)
        assert shown(data).shape == (height, width, 3)
        start, end = data.index(b"IDAT") + 4, data.rindex(b"IEND") - 8
        rows = zlib.decompress(data[start:end])
        fewer = png_chunk(b"IDAT", zlib.compress(rows[:-1]))
        with pytest.raises(BrokenImage):
            shown(data[: start - 8] + fewer + data[end + 4 :])


def test_a_chunk_that_a_reader_must_know_makes_it_another_format() -> None:
    """`CgBI`: PNG as Apple's tools pack it into applications, without a zlib header."""
    data = png(GRAY, 8, 0)
    with pytest.raises(UnsupportedImage, match="CgBI"):
        shown(SIGNATURE + png_chunk(b"CgBI", b"\x50\0\x20\2") + data[8:])


def test_what_follows_the_pixels_may_be_missing() -> None:
    data = png(GRAY, 8, 0)
    for cut in range(1, 13):
        assert np.array_equal(shown(data[:-cut], "L"), GRAY[..., 0])
    assert np.array_equal(shown(data + b"PK\x03\x04" + bytes(60), "L"), GRAY[..., 0])


EXIF = Image.Exif()
EXIF[0x0112] = 6
PROFILE = b"\nexif\n%8d\n" % len(EXIF.tobytes()) + EXIF.tobytes().hex().encode() + b"\n"
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", EXIF.tobytes()[6:]),
        (b"eXIf", EXIF.tobytes()),
        (b"tEXt", b"Raw profile type exif\0" + PROFILE),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE)),
        (b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(PROFILE)),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    ],
    ids=["exif", "exif with its name", "text", "packed", "APP1", "xmp", "xmp packed"],
)
def test_the_image_is_turned_by_any_of_its_metadata(chunk: tuple[bytes, bytes], place: str) -> None:
    before, after = ([chunk], []) if place == "before" else ([], [chunk])
    data = png(GRAY, 8, 0, before=before, after=after)
    assert turn_of(open_image(data, ImageConfig())) is Image.Transpose.ROTATE_270
