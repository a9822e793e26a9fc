"""Adapts the configuration of a model of Keras 2, as `.h5` files hold it, to Keras 3.

What Keras 3 does not do itself:

- Many layers had arguments that Keras 3 refuses. Those without an effect on what a trained model
  answers are left out: `groups = 1` of `DepthwiseConv2D`, which is in every model of Teachable
  Machine; how weights start and are trained; random numbers.
- A functional model with one output returned that; of the same configuration Keras 3 makes a model
  that returns a list of one, which the next layer of a Sequential model takes for several inputs.
- A model inside of a functional one has no node of its own any more, so that its calls are counted
  from 0. Names of layers have no slash.
- The first layer of a Sequential model had the input's shape as an argument, a layer's type may be
  a `Policy`, and an axis a list of one.
- Since 2.12 the configuration names the modules of Keras 2, which are elsewhere now. Without them
  Keras 3 finds the layers by their names.
- Before Keras 2.2.3 the configuration of a Sequential model was a list of its layers.

Compared with Keras 2 (`tf_keras` 2.21) itself on models of most layers for images, and on a model
of Teachable Machine: the scores differ by less than 1e-5. Rejected: reading the files by Keras 2.
It would be a second Keras in the process, and runs the code that a `.h5` file may hold.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["adapted", "objects_in"]

_MODELS: Final = frozenset({"Functional", "Model", "Sequential"})
# Arguments that Keras 3 does not have, with the values that change nothing.
_WITHOUT_EFFECT: Final = {
    "dynamic": False,
    "groups": 1,
    "ragged": False,
    "renorm": False,
    "sparse": False,
    "time_major": False,
}
# Arguments that have no effect on a trained model's answers, or that its input says.
_OF_TRAINING: Final = frozenset(
    {"batch_input_shape", "implementation", "noise_shape", "rng_type", "seed", "trainable"}
)
_OF_TRAINING_ENDS: Final = ("_constraint", "_initializer", "_regularizer")


def objects_in(configuration: Any) -> Iterator[dict[str, Any]]:
    """Every object in a configuration: a `class_name` and a `config`."""
    waiting = [configuration]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if isinstance(each.get("class_name"), str):
                yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def adapted(keras: Any, configuration: Any) -> Any:
    """The configuration of a model of Keras 2, such that Keras 3 makes the same model of it."""
    configuration = copy.deepcopy(configuration)
    for each in objects_in(configuration):
        kind, arguments = each["class_name"], each.get("config")
        if str(each.get("module")).partition(".")[0] in ("keras", "tf_keras"):
            for key in ("module", "registered_name", "build_config"):
                each.pop(key, None)
        if kind == "Sequential":
            each["config"] = _sequential(arguments)
        elif isinstance(arguments, dict):
            if "output_layers" in arguments:
                _adapt_nodes(arguments)
            if isinstance(arguments.get("name"), str):
                arguments["name"] = _name(arguments["name"])
            if "layers" not in arguments and hasattr(keras.layers, kind):
                _adapt_layer(getattr(keras.layers, kind), arguments)
    return configuration


def _sequential(arguments: Any) -> dict[str, Any]:
    """The arguments of a Sequential model, with a layer for its input where they say its shape."""
    if isinstance(arguments, list):
        arguments = {"name": "sequential", "layers": arguments}
    first, *others = arguments["layers"]
    shape = first["config"].get("batch_input_shape")
    if first["class_name"] != "InputLayer" and shape:
        name = f"{first['config'].get('name', 'first')}_input"
        image = {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "name": name}}
        first, others = image, [first, *others]
    return {**arguments, "layers": [first, *others]}


def _adapt_nodes(arguments: dict[str, Any]) -> None:
    """Adapt the references from layer to layer in a functional model: `[name, node, tensor]`."""
    layers = arguments["layers"]
    models = {each["name"] for each in layers if each["class_name"] in _MODELS}
    sequential = {each["name"] for each in layers if each["class_name"] == "Sequential"}
    for each in layers:
        _adapt_references(each["inbound_nodes"], models)
        each["name"] = _name(each["name"])
    for end in ("input_layers", "output_layers"):
        _adapt_references(arguments[end], sequential)  # Keras does it for the other models
        arguments[end] = _single(arguments[end])


def _adapt_references(value: Any, models: set[str]) -> None:
    """Count the calls of `models` from 0, and write all names as Keras 3 takes them."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return
    if len(value) > 2 and isinstance(value[0], str) and isinstance(value[1], int):
        if value[0] in models:
            value[1] = max(0, value[1] - 1)
        value[0] = _name(value[0])
    for each in value:
        _adapt_references(each, models)


def _name(name: str) -> str:
    return name.replace("/", "_")


def _single(tensors: Any) -> Any:
    """The only tensor of a list of one; a tensor is `[layer, node, index]`."""
    if isinstance(tensors, list) and len(tensors) == 1 and isinstance(tensors[0], list):
        return tensors[0]
    return tensors


def _adapt_layer(layer: type, arguments: dict[str, Any]) -> None:
    known = _arguments(layer)
    for key, value in list(arguments.items()):
        if key not in known and (
            key in _OF_TRAINING
            or key.endswith(_OF_TRAINING_ENDS)
            or (key in _WITHOUT_EFFECT and value == _WITHOUT_EFFECT[key])
        ):
            del arguments[key]
    axis, policy = arguments.get("axis"), arguments.get("dtype")
    if isinstance(axis, list) and len(axis) == 1:
        arguments["axis"] = axis[0]
    if isinstance(policy, dict) and policy.get("class_name") in ("Policy", "PolicyV1"):
        arguments["dtype"] = policy["config"]["name"]


def _arguments(layer: type) -> set[str]:
    """The arguments that a layer takes; `batch_input_shape` only as one of an input."""
    known = {"batch_input_shape"} if layer.__name__ == "InputLayer" else set[str]()
    for each in layer.__mro__:
        if "__init__" in vars(each):
            parameters = inspect.signature(each).parameters
            known |= parameters.keys()
            if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                break
    return known
