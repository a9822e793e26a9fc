"""Boxes and masks come back to the image as it was sent, whatever was done to it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.images.placement import Placement
from fingerpost.worker.images.preprocess import prepare_placed
from fingerpost.worker.models.manifest import Filter, Preprocessing, Resize
from tests.support.examples import examples

ORIENTATIONS = range(1, 9)


def sent(pixels: np.ndarray, orientation: int, form: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, exif=exif)
    return out.getvalue()


def model(height: int, width: int, rule: Resize, crop: float = 1.0) -> ImageInput:
    preprocessing = Preprocessing(resize=rule, crop_fraction=crop, filter=Filter.NEAREST)
    return ImageInput(height=height, width=width, preprocessing=preprocessing)


def edges(mask: np.ndarray) -> list[float]:
    """x0, y0, x1, y1 of the pixels that are set."""
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@given(
    orientation=st.sampled_from(ORIENTATIONS),
    sides=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    times=st.integers(1, 4),
    margin=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
@settings(max_examples=examples(80), deadline=None)
def test_a_box_is_where_it_was_drawn(
    orientation: int,
    sides: tuple[int, int],
    corner: tuple[float, float],
    times: int,
    margin: tuple[int, int],
) -> None:
    """In whole multiples of the size there is no rounding: the box comes back exactly."""
    height, width = (4 * side for side in sides)
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = int(corner[0] * (height - 2)), int(corner[1] * (width - 2))
    pixels[top : top + 2, left : left + 2] = 255
    up = (width, height) if orientation > 4 else (height, width)
    # A letterbox: the image times a whole number, with a margin on one pair of sides.
    pad = (margin[0], 0) if margin[0] > margin[1] else (0, margin[1])
    wanted = model(times * up[0] + pad[0], times * up[1] + pad[1], Resize.PAD)
    seen, placement = prepare_placed(sent(pixels, orientation), wanted, ImageConfig())
    assert placement.orientation == orientation
    assert (placement.width, placement.height) == (width, height)
    box = np.array([edges(seen[..., 0] == 255)], np.float64)
    found = placement.to_sent(box)
    assert found.tolist() == [[left, top, left + 2, top + 2]]


@pytest.mark.parametrize("rule", Resize)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_rule_and_orientation(orientation: int, form: str, rule: Resize) -> None:
    """A JPEG of this size is decoded at a fraction of it; each edge is right to a pixel of that."""
    height, width = 480, 640
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[160:320, 200:400] = 255
    wanted = ImageInput(
        height=64,
        width=96,
        preprocessing=Preprocessing(resize=rule, crop_fraction=0.9 if rule is Resize.CROP else 1),
    )
    data = sent(pixels, orientation, form)
    seen, placement = prepare_placed(data, wanted, ImageConfig())
    assert np.array_equal(seen, prepare(data, wanted, ImageConfig()))
    gray = seen[..., 0].copy()
    gray[gray == 114] = 0  # of the letterbox
    box = np.array([edges(gray > 127)], np.float64)
    scale = max(
        (placement.box[2] - placement.box[0]) / placement.size[0],
        (placement.box[3] - placement.box[1]) / placement.size[1],
    )
    assert placement.to_sent(box)[0] == pytest.approx([200, 160, 400, 320], abs=scale)
    whole = placement.to_sent(np.array([[-1e4, -1e4, 1e4, 1e4]]))
    assert whole.tolist() == [[0, 0, width, height]]
    outside = placement.to_sent(np.array([[1e4, 1e4, 2e4, 2e4], [-9e3, 2.0, -8e3, 9.0]]))
    areas = (outside[:, 2] - outside[:, 0]) * (outside[:, 3] - outside[:, 1])
    assert areas.tolist() == [0, 0]


@given(
    orientation=st.sampled_from(ORIENTATIONS),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    times=st.integers(1, 3),
    margin=st.integers(0, 6),
    part=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
@settings(max_examples=examples(60), deadline=None)
def test_a_mask_is_the_image_that_it_was_made_of(
    orientation: int, sides: tuple[int, int], times: int, margin: int, part: int, seed: int
) -> None:
    """What the model sees, used as its answer, is the image again; the letterbox is cut off."""
    height, width = sides
    pixels = np.random.default_rng(seed).integers(0, 200, (height, width)).astype(np.uint8)
    up = (width, height) if orientation > 4 else (height, width)
    wanted = model(times * up[0] + 2 * margin, times * up[1], Resize.PAD)
    data = sent(np.stack([pixels] * 3, axis=2), orientation)
    seen, placement = prepare_placed(data, wanted, ImageConfig())
    # The model's map has as many pixels, or twice as many a side.
    answer = seen[..., 0].repeat(part, axis=0).repeat(part, axis=1)
    shown = Image.fromarray(answer).crop(
        placement.seen(answer.shape, (wanted.height, wanted.width))
    )
    assert np.array_equal(np.asarray(placement.map_to_sent(shown, 0)), pixels)


def test_what_was_cropped_away_is_the_class_of_the_outside() -> None:
    pixels = np.full((40, 80, 3), 9, np.uint8)
    seen, placement = prepare_placed(sent(pixels, 1), model(40, 40, Resize.CROP), ImageConfig())
    mask = np.asarray(placement.map_to_sent(Image.fromarray(seen[..., 0]), 255))
    assert mask.shape == (40, 80)
    assert (mask[:, 20:60] == 9).all()
    assert (mask[:, :20] == 255).all()
    assert (mask[:, 60:] == 255).all()


def test_a_model_of_any_size_gets_the_image_filled_up() -> None:
    pixels = np.full((33, 50, 3), 9, np.uint8)
    wanted = ImageInput(multiple=16)
    seen, placement = prepare_placed(sent(pixels, 6), wanted, ImageConfig())
    assert seen.shape == (64, 48, 3)
    assert (seen[:50, :33] == 9).all()
    assert (seen[50:] == 114).all()
    # Upright x from 3 to 5, y from 10 to 20.
    found = placement.to_sent(np.array([[3.0, 10, 5, 20]]))
    assert found.tolist() == [[10, 33 - 5, 20, 33 - 3]]


def test_orientations_are_known_by_their_number() -> None:
    place = Placement(width=4, height=2, turn=None, box=(0, 0, 4, 2), size=(4, 2), offset=(0, 0))
    assert place.orientation == 1
    assert place.upright_size == (4, 2)
