"""No image takes a decoder longer than an honest one of the same limits may: see `HOSTILE`."""

from __future__ import annotations

import time

import pytest
from tests.support.bad_images import JPEG
from tests.support.hostile_heif import HOSTILE_HEIF, REFUSED_HEIF
from tests.support.hostile_images import HOSTILE, REFUSED, jpeg, scan, sequential
from tests.support.pictures import after_start, phone_jpeg, photo, save, specimens, wanted

from fingerpost.errors import BrokenImage, ImageError, ImageTooLarge, UnsupportedImage
from fingerpost.worker.images import ImageConfig, decode, prepare

# As the worker itself does at its start; pytest puts its own rules above that.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

# Seconds of a processor that 64 honest megapixels may take (docs/decisions/0010-decoding.md has the
# measured ones), twice as many for a machine that is busy.
LONGEST_S = 10.0
# What a refusal may take of that: it has looked at 20 MB once.
REFUSAL_S = 0.25
ALL = HOSTILE | HOSTILE_HEIF
ALL_REFUSED = REFUSED | REFUSED_HEIF


def seconds_of(data: bytes) -> tuple[float, ImageError | None]:
    """What an image takes a thread of the processor's time, and its error."""
    began = time.thread_time()
    error = None
    try:
        decode(data, size=(224, 224), channels=3)
    except ImageError as raised:
        error = raised
    return time.thread_time() - began, error


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_no_image_takes_longer_than_an_honest_one(name: str) -> None:
    took_s, error = seconds_of(ALL[name]())
    assert took_s < LONGEST_S
    if error is not None:
        assert not error.retryable
        assert error.status in (413, 415, 422)


# To make a tile of 16 megapixels takes a second.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[pytest.mark.slow] if "16 megapixels" in each else [])
        for each in ALL_REFUSED
    ],
)
def test_what_multiplies_work_is_refused_before_it_is_decoded(name: str) -> None:
    took_s, error = seconds_of(ALL[name]())
    assert isinstance(error, ALL_REFUSED[name])
    assert took_s < REFUSAL_S


@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC2])
def test_scans_count_whatever_the_coding(frame: int) -> None:
    """100 small ones pass; at the limit of pixels, as many as go over them 20 times."""
    spectral = (0, 0, 0) if frame == 0xC2 else (0, 63, 0)
    small = [scan(1 + n % 3, spectral) for n in range(101)]
    assert decode(
        jpeg(b"".join(small[:100]), frame=frame, size=(64, 64)), size=None, channels=3
    ).any()
    with pytest.raises(BrokenImage, match="more than 100 scans: encode"):
        decode(jpeg(b"".join(small), frame=frame, size=(64, 64)), size=None, channels=3)
    limits = ImageConfig(max_pixels=64 * 64)
    prepare(jpeg(b"".join(small[:20]), frame=frame, size=(64, 64)), wanted(8, 8), limits)
    with pytest.raises(ImageTooLarge, match="more than 20 scans of 0 megapixels"):
        prepare(jpeg(b"".join(small[:21]), frame=frame, size=(64, 64)), wanted(8, 8), limits)


def test_honest_scans_are_few() -> None:
    """libjpeg's own: 10 in colours, 6 in gray, 18 in CMYK; each passes at the limit of pixels."""
    limits = ImageConfig(max_pixels=64 * 48)
    for mode, count in (("RGB", 10), ("L", 6), ("CMYK", 18)):
        data = save(photo(mode=mode), "JPEG", progressive=True)
        assert data.count(b"\xff\xda") == count
        prepare(data, wanted(8, 8), limits)


@pytest.mark.parametrize(
    "data",
    [
        JPEG + b"\xff\xda" * 1000,
        save(photo(), "JPEG", progressive=True) + b"\xff\xda" * 1000,
        after_start(save(photo(), "JPEG", progressive=True), (0xE5, b"\xff\xda" * 1000)),
        phone_jpeg() + save(photo(), "JPEG", progressive=True) * 20,
        after_start(
            JPEG, *[(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(9)) for n in range(255)]
        ),
    ],
    ids=["film", "film behind progressive", "metadata", "further pictures", "profile in 255"],
)
def test_what_only_looks_like_scans_does_not_count(data: bytes) -> None:
    prepare(data, wanted(8, 8), ImageConfig())


def test_every_prefix_of_a_hostile_image_has_a_typed_error_or_pixels() -> None:
    for data in (sequential(30, size=(64, 64)), *specimens().values()):
        for end in range(12, min(len(data), 1200), 31):
            took_s, _ = seconds_of(data[:end])
            assert took_s < 1


def test_arithmetic_coding_is_told_with_the_remedy() -> None:
    with pytest.raises(UnsupportedImage, match="encode it with Huffman coding"):
        decode(jpeg(scan(1), frame=0xC9, components=1), size=(8, 8), channels=3)


def test_what_is_between_the_segments_of_a_jpeg_is_bounded() -> None:
    data = save(photo(), "JPEG")
    at = data.index(b"\xff\xdb")
    padded = data[:at] + b"\xff" * 1000 + data[at:]
    assert decode(padded, size=(8, 8), channels=3).shape == (8, 8, 3)
    for junk in (b"\xff", b"\x00"):
        padded = data[:at] + junk * 19_000_000 + data[at:]
        seconds, error = seconds_of(padded)
        assert (type(error), seconds < REFUSAL_S) == (BrokenImage, True)
        assert "bytes between its segments" in str(error)


def test_bytes_that_fill_up_to_a_marker_take_as_long_as_they_are() -> None:
    sound, progressive = save(photo(), "JPEG"), save(photo(), "JPEG", progressive=True)
    for start in (sound[: sound.index(b"\xff\xdb")], progressive[:-2]):
        seconds, error = seconds_of(start + b"\xff" * 1_000_000)
        assert (type(error), seconds < REFUSAL_S) == (BrokenImage, True)


def test_a_jpeg_without_a_scan_is_refused_unread() -> None:
    data = save(photo(), "JPEG")
    header = data[: data.index(b"\xff\xda")]
    seconds, error = seconds_of(header + bytes(19_000_000))
    assert (type(error), seconds < REFUSAL_S) == (BrokenImage, True)
    assert "no scan" in str(error)
