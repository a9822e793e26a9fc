"""Arrays of bytes, with NumPy and without."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from fingerpost.client.tasks import arrays
from fingerpost.client.tasks.arrays import array_of, rows_of
from fingerpost.client.tasks.wire import DATATYPES

SHAPES = [(6,), (2, 3), (1, 2, 3), (0,), (0, 4), ()]


@pytest.fixture(params=["numpy", "lists"])
def with_numpy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "lists":
        monkeypatch.setattr(arrays, "_numpy", lambda: None)
    return request.param == "numpy"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_type_and_shape(with_numpy: bool, datatype: str, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    expected = (np.arange(count) % 2).astype(DATATYPES[datatype]).reshape(shape)
    found = array_of(datatype, shape, expected.tobytes())
    assert isinstance(found, np.ndarray) is with_numpy
    assert rows_of(found) == expected.tolist()
    if with_numpy and shape:
        found[...] = 1  # not read-only


def test_bytes_are_lists(with_numpy: bool) -> None:
    data = b"".join(struct.pack("<I", len(each)) + each for each in (b"a", b"", b"ccc", b"dd"))
    assert array_of("BYTES", (2, 2), data) == [[b"a", b""], [b"ccc", b"dd"]]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", (2,), b"1234", "4 bytes for FP32 [2], which has 8"),
        ("FP32", (0,), b"1", "1 bytes for FP32 [0], which has 0"),
        ("COMPLEX", (1,), b"1234", "datatype 'COMPLEX' is not known"),
        ("BYTES", (2,), struct.pack("<I", 1) + b"a", "BYTES end within a length"),
        ("BYTES", (1,), struct.pack("<I", 9) + b"a", "5 bytes for BYTES [1], which have 13"),
        ("BYTES", (1,), struct.pack("<I", 1) + b"ab", "6 bytes for BYTES [1], which have 5"),
    ],
)
def test_bytes_that_do_not_fit(
    with_numpy: bool, datatype: str, shape: tuple[int, ...], data: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        array_of(datatype, shape, data)
