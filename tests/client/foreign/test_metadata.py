from __future__ import annotations

import pytest

from fingerpost.client.foreign.metadata import ForeignModel
from fingerpost.errors import InvalidInstance
from fingerpost.registry.foreign import foreign_instance


def model(**meta):
    return ForeignModel.of(foreign_instance("flowers", host="10.0.0.7", port=9000, meta=meta))


@pytest.mark.parametrize(
    ("meta", "path"),
    [
        ({}, "/"),
        ({"path": "/predict?x=1"}, "/predict?x=1"),
        ({"protocol": "torchserve"}, "/predictions/flowers"),
        ({"protocol": "torchserve", "version": "2"}, "/predictions/flowers/2"),
        ({"protocol": "torchserve", "version": "2", "model": "A b"}, "/predictions/A%20b/2"),
        ({"protocol": "v2"}, "/v2/models/flowers/infer"),
        ({"protocol": "v2", "version": "2"}, "/v2/models/flowers/versions/2/infer"),
        ({"protocol": "tfserving", "model": "x"}, "/v1/models/x:predict"),
        ({"protocol": "tfserving", "version": "2"}, "/v1/models/flowers/versions/2:predict"),
    ],
)
def test_the_path_of_the_request(meta, path):
    assert model(**meta).path == path


def test_what_a_tensor_is_made_of():
    found = model(
        protocol="v2", size="224x192", layout="NCHW", scale="1/255", mean="0.5,0.4,0.3", std="0.2"
    ).tensor
    assert found is not None
    assert found.shape == [1, 3, 224, 192]
    assert (found.scale, found.mean, found.std) == (1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    gray = model(size="28x28x1", dtype="uint8").tensor
    assert gray is not None
    assert (gray.shape, gray.dtype, gray.mean) == ([1, 28, 28, 1], "uint8", (0.0,))
    assert model().tensor is None


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"size": "large"}, "size='large' is not valid: use HEIGHTxWIDTH"),
        ({"size": "0x5"}, "use HEIGHTxWIDTH"),
        ({"scale": "1/255"}, "it has an effect only with size"),
        ({"size": "8", "scale": "1/0"}, "scale='1/0' is not valid: use a number"),
        ({"size": "8", "mean": "1,2"}, "use one number or 3"),
        ({"size": "8", "std": "0"}, "other than 0"),
        ({"size": "8", "mean": "nan"}, "use one number"),
        ({"size": "8", "dtype": "uint8", "scale": "1/255"}, "are for float32"),
        ({"size": "8", "dtype": "int4"}, "use float32 or uint8"),
        ({"size": "8", "layout": "CHW"}, "use NHWC or NCHW"),
        ({"path": "predict"}, "a path that starts with /"),
        ({"path": "/a\r\nX: y"}, "a path that starts with /"),
        ({"field": 'a"\r\nX: y'}, "letters, digits"),
        ({"scores": "log"}, "use probabilities or logits"),
        ({"encoding": "xml"}, "use json or binary"),
    ],
)
def test_what_is_not_valid_names_key_value_and_remedy(meta, says):
    with pytest.raises(InvalidInstance, match=r"flowers at 10\.0\.0\.7:9000: its metadata") as bad:
        model(**meta)
    assert says in str(bad.value)


def test_labels():
    assert model(labels="daisy, rose,").labels == ("daisy", "rose")
