"""The table of bad images: what each input gets, and that good ones come out right."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import textwrap
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from fingerpost.errors import BrokenImage, ImageError, ImageTooLarge
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images import (
    FORMATS,
    ImageConfig,
    decode,
    open_image,
    prepare,
    reencode,
)
from tests.support.bad_images import BAD, JPEG, PNG, SPECIMENS
from tests.support.pictures import (
    after_start,
    difference,
    phone_jpeg,
    photo,
    save,
    wanted,
)

# As the worker itself does at its start; pytest puts its own rules above that.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.mark.parametrize("name", BAD)
def test_bad_images_get_their_typed_error(name: str) -> None:
    data, error = BAD[name]
    with pytest.raises(error) as caught:
        decode(data, size=(8, 8), channels=3)
    assert type(caught.value) is error
    assert not caught.value.retryable
    assert len(caught.value.message) < 500


def test_the_bomb_is_small_and_its_message_says_what_to_do() -> None:
    bomb = BAD["100 megapixels"][0]
    assert len(bomb) < 13_000
    with pytest.raises(
        ImageTooLarge, match=r"10000 x 10000, .* 100 megapixels, over the limit of 64"
    ):
        decode(bomb, size=(8, 8), channels=3)


@pytest.mark.shell
def test_bombs_take_no_memory_and_warnings_are_no_news() -> None:
    """In a process of its own, where every warning is an error, as its peak counts."""
    script = """
        import resource
        from fingerpost.worker.images import decode
        from fingerpost.errors import ImageError
        from tests.support.bad_images import BAD
        def peak_mb():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak_mb()
        for data, _ in BAD.values():
            try:
                decode(data, size=(8, 8), channels=3)
            except ImageError:
                pass
        print(peak_mb() - before)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 64
    assert not done.stderr


def test_limits_are_the_callers() -> None:
    config = ImageConfig(max_bytes=len(PNG), max_pixels=64 * 48, max_side=64)
    assert open_image(PNG, config).size == (64, 48)
    for stricter, error in (
        (ImageConfig(max_bytes=len(PNG) - 1), ImageTooLarge),
        (ImageConfig(max_pixels=64 * 48 - 1), ImageTooLarge),
        (ImageConfig(max_side=63), BrokenImage),
    ):
        with pytest.raises(error):
            open_image(PNG, stricter)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SPECIMENS)
def test_every_format_and_mode_becomes_what_the_model_takes(name: str, channels: int) -> None:
    pixels = prepare(SPECIMENS[name], wanted(12, 10, channels), ImageConfig())
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (12, 10, channels)
    assert pixels.dtype == np.uint8
    if name == "mpo" or "alpha" in name or "lzw" in name:
        return  # other pictures than the rest; see below
    upright = photo(mode="L").rotate(-90 if "turned" in name else 0, expand=True)
    expected = np.asarray(upright.resize((10, 12), Image.Resampling.BILINEAR))
    assert np.abs(pixels.mean(axis=2) - expected).mean() < (
        12 if "1 bit" in name or "fax" in name else 3
    )


def test_the_list_of_formats_is_what_is_read() -> None:
    assert FORMATS == ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIC")
    read = {open_image(data, ImageConfig()).format for data in SPECIMENS.values()}
    assert read == set(FORMATS) - {"HEIC"}  # tests/client/images/decoding/test_heif.py


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: type) -> None:
    source = kind(JPEG)
    assert np.array_equal(
        decode(source, size=(9, 9), channels=3), decode(JPEG, size=(9, 9), channels=3)
    )
    assert reencode(source, ImageConfig()) == JPEG


def test_16_bit_gray_is_scaled_not_cut() -> None:
    image = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    for form in ("PNG", "TIFF"):
        pixels = decode(save(image, form), size=(4, 4), channels=1)
        assert pixels.flatten().tolist() == [128] * 16


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
@pytest.mark.parametrize("size", [(2, 2), None])
def test_transparency_is_laid_on_white(mode: str, size: tuple[int, int] | None) -> None:
    if mode == "P":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 255, 0, 0])
        data = save(image, transparency=1)
    else:
        form = "TIFF" if mode == "PA" else "PNG"
        colour = {"RGBA": (255, 0, 0, 0), "LA": (7, 0), "PA": (1, 0)}[mode]
        data = save(Image.new(mode, (8, 8), colour).convert("RGBA" if mode == "PA" else mode), form)
    assert set(decode(data, size=size, channels=3).flatten().tolist()) == {255}


def test_half_transparent_edges_do_not_bring_out_hidden_colours() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))  # hidden red
    image.paste((0, 0, 0, 255), (0, 0, 32, 64))
    pixels = decode(save(image), size=(3, 3), channels=3)
    assert difference(pixels[..., 0], pixels[..., 1]).max() == 0


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_or_page_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    data = save(frames[0], form, save_all=True, append_images=frames[1:])
    assert decode(data, size=(2, 2), channels=1).min() == 255


def test_a_phones_jpeg_with_a_second_image_is_read_as_a_jpeg() -> None:
    data = phone_jpeg()
    assert Image.open(io.BytesIO(data)).format == "MPO"
    image = open_image(data, ImageConfig())
    assert (image.format, image.size) == ("JPEG", (640, 480))
    damaged = after_start(JPEG, (0xE2, b"MPF\0" + bytes(30)))
    assert decode(damaged, size=None, channels=3).shape == (48, 64, 3)


@pytest.mark.parametrize(
    "data",
    [
        JPEG + b"PK\x03\x04" + bytes(60),
        after_start(JPEG, (0xE1, b"Exif\0\0" + b"II*\0\xff\xff\xff\xff")),
        after_start(JPEG, (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03" * 20)),
        after_start(JPEG, (0xE2, b"ICC_PROFILE\0\x01\x01" + bytes(3000))),
        after_start(JPEG, *[(0xE1, b"Exif\0\0" + bytes(60_000))] * 30),
        save(photo(), icc_profile=b"no profile"),
    ],
    ids=["zip behind", "exif outside", "exif of rubbish", "bad profile", "2 MB of exif", "png icc"],
)
def test_damage_outside_the_pixels_does_not_count(data: bytes) -> None:
    assert np.array_equal(
        decode(data, size=None, channels=3),
        decode(JPEG if data[:1] == b"\xff" else PNG, size=None, channels=3),
    )


def test_reencode_leaves_an_upright_jpeg_alone_and_turns_the_rest_into_png() -> None:
    config = ImageConfig()
    assert reencode(JPEG, config) is JPEG
    assert prepare(JPEG, ImageInput(encoded=True), config) is JPEG
    turned = SPECIMENS["jpeg 4:4:4 turned"]
    for data in (PNG, save(photo(mode="CMYK"), "JPEG"), save(photo(), "WEBP"), turned):
        made = reencode(data, config)
        assert made.startswith(b"\x89PNG")
        assert np.array_equal(
            decode(made, size=None, channels=3), decode(data, size=None, channels=3)
        )
    with pytest.raises(BrokenImage):
        reencode(JPEG[:-200], config)


@pytest.mark.slow
def test_nothing_is_kept_of_images_good_or_bad() -> None:
    """Freed at once, by reference counts alone: not by the collector, which may be minutes away."""
    bad = [data for data, _ in BAD.values() if len(data) < 100_000]
    gc.collect()
    before = [id(thing) for thing in gc.get_objects() if issubclass(type(thing), Image.Image)]
    gc.disable()
    try:
        for data in [*SPECIMENS.values(), *bad]:
            for use in (
                lambda data=data: prepare(data, wanted(9, 9), ImageConfig()),
                lambda data=data: reencode(data, ImageConfig()),
            ):
                with suppress(ImageError):
                    use()
        left = [thing for thing in gc.get_objects() if issubclass(type(thing), Image.Image)]
        assert [id(thing) for thing in left] == before
    finally:
        gc.enable()
