"""The model's resize rule is followed, and a JPEG decoded smaller looks the same."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fingerpost.errors import InvalidRequest
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images import ImageConfig, decode, fit, prepare
from fingerpost.worker.models.manifest import Filter, Resize
from tests.support.pictures import difference, save, scene, wanted

RESAMPLING = {
    Filter.NEAREST: Image.Resampling.NEAREST,
    Filter.BILINEAR: Image.Resampling.BILINEAR,
    Filter.BICUBIC: Image.Resampling.BICUBIC,
    Filter.LANCZOS: Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rule", Resize)
def test_exif_orientation_is_applied_whatever_the_resize(orientation: int, rule: Resize) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = scene((301, 200), noise=0)
    png = save(image, exif=exif, compress_level=1)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(png)))
    target = wanted(40, 33, resize=rule)
    expected = prepare(save(upright, compress_level=1), target, ImageConfig())
    for data in (png, save(image, "TIFF", exif=exif)):
        got = prepared(data, target)
        # Whole pixels are averaged from the left and from the top, whatever way up they are.
        assert difference(got, expected).mean() < 1
    whole = decode(png, size=None, channels=3)
    assert np.array_equal(whole, np.asarray(upright))


def prepared(data: bytes, target: ImageInput) -> NDArray[np.uint8]:
    """What `prepare` makes for a model that takes pixels."""
    pixels = prepare(data, target, ImageConfig())
    assert isinstance(pixels, np.ndarray)
    return pixels


def plain(image: Image.Image, target: ImageInput) -> Image.Image:
    """What the rule says, in the simplest words: resize all of it, then cut or fill up."""
    rule, size = target.preprocessing, (target.width, target.height)
    resampling = RESAMPLING[rule.filter]
    if rule.resize is Resize.STRETCH:
        return image.resize(size, resampling)
    if rule.resize is Resize.PAD:
        inner = ImageOps.contain(image, size, resampling)
        canvas = Image.new("RGB", size, (114, 114, 114))
        canvas.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
        return canvas
    scale = rule.crop_fraction * min(image.width / size[0], image.height / size[1])
    larger = image.resize((round(image.width / scale), round(image.height / scale)), resampling)
    left, top = (larger.width - size[0]) / 2, (larger.height - size[1]) / 2
    return larger.crop((round(left), round(top), round(left) + size[0], round(top) + size[1]))


@pytest.mark.parametrize("rule", Resize)
@pytest.mark.parametrize("size", [(150, 150), (150, 210), (120, 60)])
@pytest.mark.parametrize("fraction", [1.0, 0.75])
def test_the_models_resize_rule_is_followed(
    rule: Resize, size: tuple[int, int], fraction: float
) -> None:
    """At sizes where no crop ends within a pixel, so that only rounding is between them."""
    image = scene((840, 600), noise=0)
    target = wanted(*size, resize=rule, crop_fraction=fraction)
    got = prepared(save(image, compress_level=1), target)
    assert difference(got, plain(image, target)).mean() < 1


def test_torchvisions_evaluation_is_crop_with_a_fraction() -> None:
    """Resize(256), CenterCrop(224): without a fraction of a pixel there is nothing between them."""
    image = scene((640, 512), noise=0)
    shorter = image.resize((320, 256), Image.Resampling.BILINEAR).crop((48, 16, 272, 240))
    target = wanted(224, 224, resize=Resize.CROP, crop_fraction=0.875)
    assert difference(prepared(save(image), target), shorter).max() <= 1


@pytest.mark.parametrize(("size", "filling"), [((400, 100), (30, 0)), ((100, 400), (0, 30))])
def test_pad_fills_up_with_gray_on_both_sides(
    size: tuple[int, int], filling: tuple[int, int]
) -> None:
    pixels = prepared(save(Image.new("RGB", size)), wanted(80, 80, resize=Resize.PAD))
    assert pixels[0, 0].tolist() == [114] * 3
    rows, columns = np.nonzero(pixels[..., 0] == 0)
    assert (rows.min(), columns.min()) == filling
    assert (rows.max(), columns.max()) == (79 - filling[0], 79 - filling[1])


@pytest.mark.parametrize("rule", Resize)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_extreme_shapes_come_out_too(rule: Resize, size: tuple[int, int]) -> None:
    for form, exact in product(("PNG", "JPEG"), Filter):
        target = wanted(7, 9, resize=rule, filter=exact, crop_fraction=0.5)
        data = save(Image.new("RGB", size, (200, 100, 50)), form)
        pixels = prepared(data, target)
        assert pixels.shape == (7, 9, 3)
        assert difference(pixels[3, 4], (200, 100, 50)).max() <= 3


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("exact", Filter)
def test_a_jpeg_decoded_smaller_looks_the_same(exact: Filter, sampling: str) -> None:
    """Bounds: twice of what was measured; a shift by half a pixel alone gives a mean of 4."""
    data = save(scene((1601, 1203)), "JPEG", quality=92, subsampling=sampling)
    for size in ((224, 224), (299, 299), (96, 160), (1000, 900)):
        target = wanted(*size, filter=exact)
        away = difference(prepared(data, target), plain(Image.open(io.BytesIO(data)), target))
        if exact is Filter.NEAREST:
            assert away.max() == 0
        else:
            assert away.mean() < 2.5
            assert np.percentile(away, 99) < 16


def test_a_jpeg_is_decoded_no_larger_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[int, int]] = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda self: (loaded.append(self.size), load(self))[1])
    data = save(Image.new("RGB", (1600, 1200)), "JPEG")
    for target, size in {
        wanted(224, 224): (400, 300),
        wanted(96, 96): (200, 150),
        wanted(299, 299): (800, 600),
        wanted(1000, 1000): (1600, 1200),
        wanted(224, 224, resize=Resize.PAD): (400, 300),
        wanted(224, 224, resize=Resize.CROP, crop_fraction=0.5): (800, 600),
        wanted(224, 224, filter=Filter.NEAREST): (1600, 1200),
    }.items():
        loaded.clear()
        prepare(data, target, ImageConfig())
        assert loaded[0] == size


@pytest.mark.frameworks
def test_top_1_is_the_same_as_from_the_whole_image() -> None:
    """Handwritten digits, drawn as photographs, told apart by a model trained on plain pixels."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC
    from sklearn.utils import Bunch

    digits, size = load_digits(), (230, 173)  # at 1/4 it is 1.34 x the model's size, as 1600 x 1200
    assert isinstance(digits, Bunch)
    target = wanted(32, 32, 1)
    whole, smaller = [], []
    for number, digit in enumerate(digits.images[:800]):
        rng = np.random.default_rng(number)
        picture = Image.new("L", size, 40)
        drawn = Image.fromarray((digit * 12).astype(np.uint8))
        picture.paste(drawn.resize((170, 170), Image.Resampling.BICUBIC), (30, 0))
        noisy = np.asarray(picture, np.int16) + rng.normal(0, 12, size[::-1]).astype(np.int16)
        data = save(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), "JPEG", quality=88)
        whole.append(np.asarray(plain(Image.open(io.BytesIO(data)), target)).ravel())
        smaller.append(np.asarray(prepare(data, target, ImageConfig())).ravel())
    model = SVC(C=10).fit(np.stack(whole[:500]) / 255, digits.target[:500])
    before, after = (model.predict(np.stack(seen[500:]) / 255) for seen in (whole, smaller))
    assert (before == digits.target[500:800]).mean() > 0.9
    assert np.array_equal(before, after)


@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64, 1), (300, 7, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_clients_send_are_fitted(shape: tuple[int, ...], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    target = wanted(12, 10, channels, resize=Resize.CROP)
    got = fit(pixels, target)
    assert got.shape == (12, 10, channels)
    image = Image.fromarray(pixels if shape[2] == 3 else pixels[..., 0])
    assert np.array_equal(got, prepare(save(image), target, ImageConfig()))


def test_pixels_of_the_models_size_go_in_as_they_are() -> None:
    pixels = np.zeros((12, 10, 3), np.uint8)
    assert fit(pixels, wanted(12, 10, resize=Resize.CROP, crop_fraction=0.5)) is pixels


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (0, 4, 3), (1, 4, 4, 3)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="shape"):
        fit(np.zeros(shape, np.uint8), wanted(12, 10))
    with pytest.raises(InvalidRequest, match="encoded"):
        fit(np.zeros((4, 4, 3), np.uint8), ImageInput(encoded=True))
