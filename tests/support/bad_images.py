"""The table of bad images: what each one's error is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fingerpost.errors import BrokenImage, EmptyImage, ImageTooLarge, UnsupportedImage
from tests.support.pictures import (
    after_start,
    bmp_of_runs,
    jpeg_of_scans,
    photo,
    png_chunk,
    png_claiming,
    save,
    specimens,
    tiff_of_strips,
    tiff_with_a_tile,
    webp_claiming,
)
from tests.support.raw_images import tiff_of

__all__ = ["BAD", "JPEG", "PNG", "SPECIMENS"]

JPEG = save(photo(), "JPEG")
PNG = save(photo())
SPECIMENS = specimens()
FLOAT_TIFF = save(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")
# As Pillow writes Image.new("RGB", (7990, 7990)) without loss, quality=0 and method=0.
WEBP = bytes.fromhex("524946461a000000574542505650384c0e0000002f355fcd07071011fd0f4444ff03")
SOF = JPEG.index(b"\xff\xc0")
BMP = save(photo(), "BMP")
BMP_OF_BITFIELDS = (
    BMP[:28] + b"\x10\0\3\0\0\0" + BMP[34:54] + bytes([0, 15, 0, 0, 240, 0, 0, 0, 15, 0, 0, 0])
)
BAD = {
    "empty": (b"", EmptyImage),
    "text": (b"hello, world, this is no image", UnsupportedImage),
    "html": (b"<!doctype html><html></html>", UnsupportedImage),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', UnsupportedImage),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", UnsupportedImage),
    "zip": (b"PK\x03\x04" + bytes(60), UnsupportedImage),
    "wav": (b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(60), UnsupportedImage),
    "two bytes of a jpeg": (JPEG[:2], UnsupportedImage),
    "eps": (save(photo(), "EPS"), UnsupportedImage),
    "ico": (save(photo(), "ICO"), UnsupportedImage),
    "video": (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(60), UnsupportedImage),
    "avif without its end": (SPECIMENS["avif"][:-40], BrokenImage),
    "avif header only": (SPECIMENS["avif"][:40], BrokenImage),
    "jpeg 2000": (save(photo(), "JPEG2000"), UnsupportedImage),
    "float tiff": (FLOAT_TIFF, UnsupportedImage),
    "32-bit tiff": (save(Image.new("I", (4, 4)), "TIFF"), UnsupportedImage),
    "lab tiff": (save(Image.new("LAB", (4, 4)), "TIFF"), UnsupportedImage),
    "16-bit lab tiff": (tiff_of(np.zeros((4, 4, 3), int), 16, 8), UnsupportedImage),
    "10-bit tiff": (tiff_of(np.zeros((4, 4, 1), int), 10, 1), UnsupportedImage),
    "jpeg 2000 in a tiff": (
        tiff_of(np.zeros((4, 4, 3), int), 8, 2, more={259: (3, [34712])}),
        UnsupportedImage,
    ),
    "12-bit jpeg": (JPEG[: SOF + 4] + b"\x0c" + JPEG[SOF + 5 :], UnsupportedImage),
    "200-bit jpeg": (JPEG[: SOF + 4] + b"\xc8" + JPEG[SOF + 5 :], BrokenImage),
    "jpeg-ls": (b"\xff\xd8\xff\xf7" + JPEG[SOF + 2 :], UnsupportedImage),
    "jpeg in a bmp": (BMP[:30] + b"\x04" + BMP[31:], UnsupportedImage),
    "compression 99 in a bmp": (BMP[:30] + b"\x63" + BMP[31:], BrokenImage),
    "uncommon bit fields in a bmp": (BMP_OF_BITFIELDS, UnsupportedImage),
    "a png of Apple's": (PNG[:8] + png_chunk(b"CgBI", b"P\0 \2") + PNG[8:], UnsupportedImage),
    "jpeg without its second half": (JPEG[: len(JPEG) // 2], BrokenImage),
    "jpeg without its end": (JPEG[:-40], BrokenImage),
    "jpeg header only": (JPEG[:20], BrokenImage),
    "png without its end": (PNG[: len(PNG) * 2 // 3], BrokenImage),
    "png with a bad checksum": (PNG[:60] + b"\xff\xff" + PNG[62:], BrokenImage),
    "webp without its end": (SPECIMENS["webp turned"][:-100], BrokenImage),
    "gif header only": (SPECIMENS["gif"][:20], BrokenImage),
    "bmp without its end": (SPECIMENS["bmp"][:-100], BrokenImage),
    "tiff without its end": (SPECIMENS["tiff deflate"][:-300], BrokenImage),
    "100 megapixels": (png_claiming(10_000, 10_000), ImageTooLarge),
    "400 megapixels": (png_claiming(20_000, 20_000), ImageTooLarge),
    "64 megapixels of webp in 34 bytes": (WEBP, ImageTooLarge),
    "256 megapixels of webp": (webp_claiming(16_000, 16_000), ImageTooLarge),
    "1 x 200,000": (png_claiming(1, 200_000), BrokenImage),
    "more bytes than allowed": (b"\xff\xd8\xff" + bytes(20_000_000), ImageTooLarge),
    "a tile of 144 megapixels": (tiff_with_a_tile(12_000), ImageTooLarge),
    "the same, said twice": (tiff_with_a_tile(12_000, (322, 4, 1, 16)), BrokenImage),
    "200,000 strips": (tiff_of_strips(200_000), BrokenImage),
    "200,000 segments": (after_start(JPEG, *[(0xE5, b"")] * 200_000), BrokenImage),
    "200,000 runs": (bmp_of_runs(200_000), BrokenImage),
    "500 scans": (jpeg_of_scans(500), BrokenImage),
}
