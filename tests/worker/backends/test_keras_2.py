"""`.h5` models as Keras 2 wrote them, byte for byte where it matters; Keras 3 alone reads few.

Each tells the mean of each channel, after weights that double it, so that the answer is known.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model

pytestmark = pytest.mark.frameworks

SIDE = 4
RED = np.full((SIDE, SIDE, 3), (250, 10, 20), np.uint8)
SHAPE = [None, SIDE, SIDE, 3]


def layer(kind: str, name: str, **given: Any) -> dict[str, Any]:
    config = {"name": name, "trainable": True, "dtype": "float32", **given}
    return {"class_name": kind, "config": config}


def image(name: str) -> dict[str, Any]:
    given = {"batch_input_shape": SHAPE, "dtype": "float32", "sparse": False, "ragged": False}
    return {"class_name": "InputLayer", "config": {**given, "name": name}}


def depthwise(**given: Any) -> dict[str, Any]:
    return layer(
        "DepthwiseConv2D",
        "depthwise",
        **{
            "kernel_size": [1, 1],
            "strides": [1, 1],
            "padding": "same",
            "data_format": "channels_last",
            "dilation_rate": [1, 1],
            "groups": 1,
            "activation": "linear",
            "use_bias": False,
            "bias_initializer": {"class_name": "Zeros", "config": {}},
            "bias_regularizer": None,
            "activity_regularizer": None,
            "bias_constraint": None,
            "depth_multiplier": 1,
            "depthwise_initializer": {
                "class_name": "VarianceScaling",
                "config": {"scale": 1, "mode": "fan_avg", "distribution": "uniform", "seed": None},
            },
            "depthwise_regularizer": None,
            "depthwise_constraint": None,
            **given,
        },
    )


def normalization() -> dict[str, Any]:
    given = {"axis": [3], "momentum": 0.99, "epsilon": 0.0, "center": True, "scale": True}
    return layer("BatchNormalization", "normalization", **given)


def pool() -> dict[str, Any]:
    return layer("GlobalAveragePooling2D", "pool", data_format="channels_last")


def dense(**given: Any) -> dict[str, Any]:
    return layer("Dense", "dense", units=3, activation="linear", use_bias=False, **given)


def sequential(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(name: str, *layers: dict[str, Any], kind: str = "Functional") -> dict[str, Any]:
    """A chain of layers."""
    names = [each["config"]["name"] for each in layers]
    nodes: list[list] = [[], *([[[before, 0, 0, {}]]] for before in names[:-1])]
    chain = [
        {**each, "name": name, "inbound_nodes": inbound}
        for each, name, inbound in zip(layers, names, nodes, strict=True)
    ]
    ends = {"input_layers": [[names[0], 0, 0]], "output_layers": [[names[-1], 0, 0]]}
    return {"class_name": kind, "config": {"name": name, "layers": chain, **ends}}


CHAIN = (image("x"), depthwise(), normalization(), pool(), dense())


def teachable_machine() -> dict[str, Any]:
    body = functional("model2", image("input_1"), depthwise(), normalization())
    features = sequential("sequential_5", image("model2_input"), body, pool())
    head_input = image("dense_input")
    head_input["config"]["batch_input_shape"] = [None, 3]
    head = sequential("sequential_7", head_input, dense(batch_input_shape=[None, 3]))
    return sequential("sequential_8", image("sequential_5_input"), features, head)


def with_a_policy() -> dict[str, Any]:
    policy = {"class_name": "Policy", "config": {"name": "float32"}}
    return functional("m", image("x"), depthwise(dtype=policy), normalization(), pool(), dense())


def with_modules() -> dict[str, Any]:
    """As since Keras 2.12."""

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(each) for each in value]
        if not isinstance(value, dict):
            return value
        found = {key: named(each) for key, each in value.items()}
        if "class_name" in found:
            found |= {"module": "keras.src.engine", "registered_name": found["class_name"]}
            found["build_config"] = {"input_shape": SHAPE}
        return found

    return named(functional("f", *CHAIN))


def of_models() -> dict[str, Any]:
    """Transfer learning: layers that augment the images, a base model, and a head."""
    flip = layer("RandomFlip", "flip", mode="horizontal", seed=None, rng_type="stateful")
    augment = sequential("augment", image("flip_input"), flip)
    base = functional("base", image("base_input"), depthwise(), normalization())
    model = functional("f", image("x"), augment, base, pool(), dense())
    for each in model["config"]["layers"][2:4]:
        each["inbound_nodes"][0][0][1] = 1  # a model's node 0 is its own
    return model


def with_slashes() -> dict[str, Any]:
    renamed = [json.loads(json.dumps(each).replace('"pool"', '"top/pool"')) for each in CHAIN]
    return functional("f", *renamed)


def of_keras_2_0() -> dict[str, Any]:
    model = sequential("", depthwise(batch_input_shape=SHAPE), normalization(), pool(), dense())
    return {"class_name": "Sequential", "config": model["config"]["layers"]}


MODELS = {
    "Teachable Machine": (teachable_machine(), "2.4.0"),
    "sequential": (sequential("s", *CHAIN), "2.15.0"),
    "functional": (functional("f", *CHAIN), "2.11.0-tf"),
    "of the name Model": (functional("f", *CHAIN, kind="Model"), "2.2.4-tf"),
    "with modules": (with_modules(), "2.15.0"),
    "of models": (of_models(), "2.12.0"),
    "names with slashes": (with_slashes(), "2.8.0"),
    "with a policy": (with_a_policy(), "2.9.0"),
    "a list of layers": (of_keras_2_0(), "2.0.8"),
}
EYE = np.eye(3, dtype=np.float32)
WEIGHTS = {
    "depthwise": {"depthwise_kernel": np.full((1, 1, 3, 1), 2, np.float32)},
    "normalization": {
        "gamma": np.ones(3, np.float32),
        "beta": np.zeros(3, np.float32),
        "moving_mean": np.zeros(3, np.float32),
        "moving_variance": np.ones(3, np.float32),
    },
    "pool": {},
    "dense": {"kernel": EYE},
}


def write(path: Path, model: dict[str, Any], version: str) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(model)
        group = file.create_group("model_weights")
        layers = model["config"] if isinstance(model["config"], list) else model["config"]["layers"]
        group.attrs["layer_names"] = [each["config"]["name"].encode() for each in layers]
        for each in layers:
            found = weights_of(each)
            own = group.create_group(each["config"]["name"])
            own.attrs["weight_names"] = [f"{name}:0".encode() for name in found]
            for name, value in found.items():
                own.create_dataset(f"{name}:0", data=value)


def weights_of(model: dict[str, Any]) -> dict[str, np.ndarray]:
    """The weights of a layer or model; those that are trained first, as Keras 2 has them."""
    names = [model["config"]["name"]]
    if "layers" in model["config"]:
        nested = [weights_of(each) for each in model["config"]["layers"]]
        found = {name: value for each in nested for name, value in each.items()}
    else:
        own = WEIGHTS.get(names[0], {})
        found = {f"{names[0]}/{name}": value for name, value in own.items()}
    return dict(sorted(found.items(), key=lambda each: "moving" in each[0]))


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_is_served(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "keras_model.h5", *MODELS[kind])
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    files = find_model(tmp_path, name="model")  # the folder, with nothing else in it
    backend = load_backend(files, LoadConfig())
    assert backend.platform == "tensorflow_keras"
    assert (backend.input.height, backend.input.width, backend.input.batch) == (SIDE, SIDE, None)
    assert backend.predict([RED] * 3) == pytest.approx(np.array([[500, 20, 40]] * 3), rel=1e-5)
    backend.close()


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_backend(find_model(path, name="model"), LoadConfig())
    return str(caught.value)


def test_what_needs_keras_2(tmp_path: Path) -> None:
    """An operation of TensorFlow in a functional model, such as `pixels / 127.5`."""
    path = tmp_path / "keras_model.h5"
    divided = layer("TFOpLambda", "divide", function="math.truediv")
    write(path, functional("f", image("x"), divided, pool()), "2.6.0")
    text = refusal(path)
    assert "TFOpLambda" in text
    assert "pip install tf_keras" in text
    assert f"tf_keras.models.load_model('{path}', compile=False).export('FOLDER')" in text


def test_an_argument_with_an_effect_is_not_left_out(tmp_path: Path) -> None:
    path = tmp_path / "keras_model.h5"
    write(path, functional("f", image("x"), depthwise(groups=3), pool()), "2.6.0")
    assert "Unrecognized keyword arguments passed to DepthwiseConv2D: {'groups': 3}" in refusal(
        path
    )


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "keras_model.h5"
    write(path, sequential("s", *CHAIN), "2.6.0")
    with h5py.File(path, "r+") as file:
        del file["model_weights/dense/dense"]
    assert "cannot be loaded" in refusal(path)


def test_weights_in_another_file(tmp_path: Path) -> None:
    path, other = tmp_path / "keras_model.h5", tmp_path / "secret"
    other.write_bytes(EYE.tobytes())
    for kind in ("external", "link", "virtual"):
        write(path, sequential("s", *CHAIN), "2.6.0")
        with h5py.File(path, "r+") as file:
            group: Any = file["model_weights/dense/dense"]
            del group["kernel:0"]
            if kind == "external":
                where = [(str(other), 0, EYE.nbytes)]
                group.create_dataset("kernel:0", (3, 3), "f4", external=where)
            elif kind == "link":
                group["kernel:0"] = h5py.ExternalLink(str(other), "/x")
            else:
                layout: Any = h5py.VirtualLayout((3, 3), "f4")
                layout[:] = h5py.VirtualSource(str(other), "x", (3, 3))
                group.create_virtual_dataset("kernel:0", layout)
        assert "keeps /model_weights/dense/dense/kernel:0 in another file" in refusal(path), kind


def test_weights_that_unfold(tmp_path: Path) -> None:
    path = tmp_path / "keras_model.h5"
    write(path, sequential("s", *CHAIN), "2.6.0")
    with h5py.File(path, "r+") as file:
        group: Any = file["model_weights/dense/dense"]
        del group["kernel:0"]
        chunked = {"chunks": (1 << 20,), "compression": "gzip"}
        group.create_dataset("kernel:0", (1 << 30,), "f4", **chunked)
    assert "unfold to 4,294,967,356 bytes, over the limit of 256,000,000" in refusal(path)
