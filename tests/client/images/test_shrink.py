"""Images made as small as the model wants them."""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.pictures import difference, photo, png_chunk, save, scene
from tests.support.raw_images import png, tiff_of

from fingerpost.client.images.shrink import shrink, wanted_size
from fingerpost.registry import Instance, ModelInfo
from fingerpost.worker.images import decode

MODELS = (ModelInfo(name="s", versions=("1",)),)


def picture(kind: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
    image = Image.effect_noise(size, 60).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("JPEG", "RGB", "JPEG"),
        ("JPEG", "L", "JPEG"),
        ("PNG", "RGBA", "PNG"),
        ("PNG", "P", "PNG"),
        ("BMP", "RGB", "PNG"),
    ],
)
def test_no_side_is_shorter_than_wanted(kind, mode, expected):
    data = picture(kind, (1600, 1200), mode)
    small = shrink(data, 224, 224)
    assert len(small) < len(data) / 4
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == (expected, (299, 224))


def test_a_turned_photograph_is_sent_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    small = shrink(picture("JPEG", (1600, 1200), exif=exif), 100, 400)
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (400, 533)
        assert not image.getexif()


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def enlarged() -> dict[str, Callable[[], bytes]]:
    """Makes an image of every format and mode, 8 times as large as that of the specimens."""
    size = (512, 384)
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = b"\nexif\n%8d\n" % len(exif.tobytes()) + exif.tobytes().hex().encode() + b"\n"
    magick = b"Raw profile type exif\0\0" + zlib.compress(raw)

    @functools.cache
    def of(mode: str) -> Image.Image:
        if mode == "RGB":
            return scene(size)
        if mode == "RGBA":
            image = of("RGB").convert("RGBA")
            image.putalpha(photo(size, "L"))
            return image
        if mode == "P":
            return of("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
        return of("RGBA" if mode == "LA" else "RGB").convert(mode)

    def saved(mode: str, kind: str = "PNG", **options: object) -> Callable[[], bytes]:
        return lambda: save(of(mode), kind, **options)

    def chunked(name: bytes, body: bytes) -> Callable[[], bytes]:
        return lambda: with_chunk(save(of("RGB")), name, body)

    def gray(bits: int) -> NDArray[np.int64]:
        samples = np.asarray(of("L")).astype(np.int64)[..., None] * 257
        return samples >> (16 - bits)

    def turning() -> bytes:
        return save(of("P"), "GIF", save_all=True, append_images=[of("P").rotate(180)])

    return {
        "jpeg": saved("RGB", "JPEG"),
        "jpeg turned": saved("RGB", "JPEG", exif=exif),
        "jpeg turned by xmp": saved("RGB", "JPEG", xmp=XMP),
        "jpeg gray": saved("L", "JPEG"),
        "jpeg cmyk": saved("CMYK", "JPEG"),
        "png": saved("RGB"),
        "png turned": saved("RGB", exif=exif),
        "png turned by xmp": chunked(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        "png turned by ImageMagick": chunked(b"zTXt", magick),
        "png alpha": saved("RGBA"),
        "png gray alpha": saved("LA"),
        "png palette": saved("P"),
        "png palette transparent": saved("P", transparency=bytes(range(256))),
        "png palette with one colour transparent": saved("P", transparency=3),
        "png 1 bit": saved("1"),
        "png 4 bits transparent": lambda: png(gray(4), 4, 0, before=[(b"tRNS", b"\0\7")]),
        "png 16 bits": lambda: png(gray(16), 16, 0),
        "png 16 bits transparent": lambda: png(gray(16), 16, 0, before=[(b"tRNS", b"\x80\x80")]),
        "tiff 16 bits MM": lambda: tiff_of(gray(16), 16, 1, order=">"),
        "tiff 16 bits II, white is 0": lambda: tiff_of(gray(16), 16, 0),
        "tiff 12 bits": lambda: tiff_of(gray(12), 12, 1),
        "tiff turned": saved("RGB", "TIFF", exif=exif),
        "tiff fax": saved("1", "TIFF", compression="group4"),
        "tiff lzw alpha": saved("RGBA", "TIFF", compression="tiff_lzw"),
        "webp turned": saved("RGB", "WEBP", exif=exif, lossless=True),
        "webp alpha": saved("RGBA", "WEBP", lossless=True),
        "gif": saved("P", "GIF"),
        "gif animated": turning,
        "bmp": saved("RGB", "BMP"),
    }


def with_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    return data[:33] + png_chunk(name, body) + data[33:]


ENLARGED = enlarged()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ENLARGED)
def test_a_worker_sees_the_same_in_it(name, channels):
    """In the mean of all pixels; two filters, one after the other, and a JPEG's loss remain: of so
    small an image a JPEG keeps little of the colours."""
    data = ENLARGED[name]()
    small = shrink(data, 48, 64)
    full = decode(data, size=(48, 64), channels=channels)
    seen = decode(small, size=(48, 64), channels=channels)
    fax = "1 bit" in name or "fax" in name
    if not fax:
        assert len(small) < len(data)
    assert difference(full, seen).mean() < (12 if "jpeg" in name else 5)
    if small is not data:
        with Image.open(io.BytesIO(small)) as image:
            assert image.mode in ("RGB", "L")
            assert image.size == ((64, 85) if "turned" in name else (64, 48))
            assert not image.info.keys() & {"icc_profile", "exif", "xmp", "transparency"}


def test_a_scan_of_one_bit_is_averaged_not_sampled():
    stripes = np.zeros((512, 512, 1), int)
    stripes[:, ::2] = 1
    noise = np.random.default_rng(0).integers(0, 2, (8, 512, 1))  # else there is nothing to save
    data = png(np.concatenate([stripes[:504], noise]), 1, 0, idat_bytes=1)
    with Image.open(io.BytesIO(shrink(data, 16, 16))) as image:
        assert image.mode == "L"
        assert np.abs(np.asarray(image)[:12].astype(int) - 127).max() < 8


@pytest.mark.slow
def test_what_a_worker_would_refuse_as_too_large_is_made_small():
    data = save(Image.new("RGB", (10_000, 7_000), "white"), "PNG", compress_level=1)
    with Image.open(io.BytesIO(shrink(data, 70, 100))) as image:
        assert image.size == (100, 70)


@pytest.mark.parametrize(
    "data",
    [
        picture("JPEG", (200, 300)),
        b"no image",
        b"",
        picture("JPEG", (1600, 1200))[:500],
    ],
    ids=["small already", "none", "empty", "cut"],
)
def test_what_cannot_be_made_smaller_is_sent_as_it_is(data):
    assert shrink(data, 224, 224) is data


def instance(image: str | None) -> Instance:
    meta = {} if image is None else {"image": image}
    return Instance(
        id="a", service="s", host="127.0.0.1", ports={"http": 1}, models=MODELS, meta=meta
    )


@pytest.mark.parametrize(
    ("images", "size"),
    [
        (["224x224x3"], (224, 224)),
        (["224x112x3", "100x300x3"], (224, 300)),
        (["224x224x3", "any"], None),
        (["224x224x3", None], None),
        ([], None),
    ],
)
def test_the_largest_size_that_a_worker_wants(images, size):
    assert wanted_size(map(instance, images)) == size


async def test_a_client_shrinks_where_it_is_asked_to(cluster):
    [worker] = await cluster.workers("one")
    worker.meta = {"image": "224x224x3"}
    client = await cluster.client(worker)
    data = picture("JPEG", (1600, 1200))
    assert (await client.classify(data, "digits")).image_bytes == len(data)
    assert client.stats.bytes_spared == 0
    result = await client.classify(data, "digits", shrink=True)
    assert result.image_bytes < len(data) / 4
    assert len(worker.bodies[1]) == result.image_bytes
    assert client.stats.bytes_spared == len(data) - result.image_bytes
    [one] = [each async for each in client.stream([data], "digits", shrink=True)]
    assert one.image_bytes == result.image_bytes
