"""Batches, against the plain formula; and what a model's output may look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fingerpost.errors import InvalidRequest
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.backends.pixels import predict_in_batches, stack, to_scores
from fingerpost.worker.models.manifest import Activation, ChannelOrder, Layout, Preprocessing

HEIGHT, WIDTH = 5, 4
BGR = Preprocessing(order=ChannelOrder.BGR)


@given(
    pixels=arrays.arrays(np.uint8, (3, HEIGHT, WIDTH, 3)),
    layout=st.sampled_from(Layout),
    order=st.sampled_from(ChannelOrder),
    mean=st.sampled_from([0.0, 127.5, (123.7, 116.3, 103.5), (7.0,)]),
    std=st.sampled_from([1.0, 255.0, (58.4, 57.1, 57.4), -2.0]),
    dtype=st.sampled_from(["float32", "float64", "float16"]),
    padding=st.integers(0, 2),
)
def test_pixels_become_what_the_formula_says(
    pixels: np.ndarray,
    layout: Layout,
    order: ChannelOrder,
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
    dtype: str,
    padding: int,
) -> None:
    wanted = ImageInput(
        height=HEIGHT,
        width=WIDTH,
        layout=layout,
        dtype=dtype,
        preprocessing=Preprocessing(order=order, mean=mean, std=std),
    )
    expected = pixels[..., ::-1] if order is ChannelOrder.BGR else pixels
    expected = (expected.astype(np.float64) - mean) / std
    expected = expected.transpose(0, 3, 1, 2) if layout is Layout.NCHW else expected
    batch = stack(list(pixels), wanted, size=3 + padding)
    assert batch.dtype == dtype
    assert batch.flags.c_contiguous
    assert batch.shape == (3 + padding, *wanted.tensor_shape)
    close = {"float16": 0.3, "float32": 1e-4, "float64": 1e-4}[dtype]
    assert np.abs(batch[:3] - expected).max() < close
    assert all(np.array_equal(extra, batch[2]) for extra in batch[3:])


def test_gray_uint8_goes_in_untouched() -> None:
    wanted = ImageInput(height=2, width=3, channels=1, dtype="uint8", layout=Layout.NCHW)
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert np.array_equal(stack([image], wanted), image.reshape(1, 1, 2, 3))


def test_tensors_for_a_model_of_uint8_must_be_whole_numbers() -> None:
    wanted = ImageInput(height=1, width=2, channels=1, dtype="uint8")
    batch = stack([np.array([[[0.0], [255.0]]], np.float32)], wanted)
    assert batch.dtype == np.uint8
    assert batch.ravel().tolist() == [0, 255]
    for bad in (0.5, -1.0, 256.0, 1e30, np.nan, np.inf):
        with pytest.raises(InvalidRequest, match="whole numbers from 0 to 255"):
            stack([np.full((1, 2, 1), bad, np.float32)], wanted)


def test_encoded_images_keep_every_byte() -> None:
    images = [b"ab\0", bytearray(b"\0\0"), memoryview(b"")]
    batch = stack(images, ImageInput(encoded=True), size=4)
    assert batch.tolist() == [b"ab\0", b"\0\0", b"", b""]


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_a_fixed_batch_is_filled_up(count: int) -> None:
    sizes = []

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return batch.reshape(len(batch), -1).astype(np.float32)

    wanted = ImageInput(height=1, width=1, channels=1, dtype="uint8", batch=4)
    scores = predict_in_batches(
        [np.full((1, 1, 1), i, np.uint8) for i in range(count)], wanted, run
    )
    assert scores.ravel().tolist() == list(range(count))
    assert sizes == [4] * -(-count // 4)


def test_scores() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 1000.0], [0.0, 0.0]])
    assert to_scores(rows, Activation.NONE, 2).tolist() == rows[:2].tolist()
    assert to_scores(rows.reshape(3, 2, 1, 1), Activation.NONE, 3).dtype == np.float32
    soft = to_scores(rows.reshape(3, 1, 1, 2), Activation.SOFTMAX, 3)
    assert soft == pytest.approx(np.array([[0.268941, 0.731059], [0, 1], [0.5, 0.5]]), abs=1e-6)
    assert to_scores([5, 6], Activation.NONE, 2, flat=True).tolist() == [[5.0], [6.0]]
    with pytest.raises(ValueError, match=r"the output is \[3\] for 2 images"):
        to_scores([5, 6, 7], Activation.NONE, 2, flat=True)
    assert to_scores([[5]], Activation.SOFTMAX, 1).tolist() == [[1.0]]


@pytest.mark.parametrize("shape", [(), (2,), (1, 3), (2, 0), (2, 3, 2), (2, 7, 7, 3)])
def test_outputs_that_are_no_rows_of_scores(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected one row of scores per image, \[2, classes"):
        to_scores(np.zeros(shape), Activation.NONE, 2)


@pytest.mark.parametrize(
    ("wanted", "shared"),
    [
        (ImageInput(height=2, width=3, dtype="uint8"), True),
        (ImageInput(height=2, width=3, dtype="float32"), False),
        (ImageInput(height=2, width=3, dtype="uint8", layout=Layout.NCHW), False),
        (ImageInput(height=2, width=3, dtype="uint8", preprocessing=BGR), False),
    ],
)
def test_one_image_that_is_the_input_already_is_not_copied(
    wanted: ImageInput, shared: bool
) -> None:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert np.shares_memory(stack([image], wanted), image) == shared
    assert not np.shares_memory(stack([image, image], wanted), image)
    assert not np.shares_memory(stack([image], wanted, size=2), image)
    image.flags.writeable = False  # a model may write into what it gets
    assert not np.shares_memory(stack([image], wanted), image)
