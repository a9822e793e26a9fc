"""Adapts the configuration of a model of Keras 2, as `.h5` files hold it, to Keras 3.

What Keras 3 does not do itself:

- Some layers had arguments that Keras 3 refuses, although their values change nothing: `groups = 1`
  of `DepthwiseConv2D` is in every model of Teachable Machine. They are left out.
- A functional model with one output returned that; of the same configuration Keras 3 makes a model
  that returns a list of one, which the next layer of a Sequential model takes for several inputs.
- The first layer of a Sequential model had the input's shape as an argument, and a layer's type may
  be a `Policy`.
- Before Keras 2.2.3 the configuration of a Sequential model was a list of its layers.

Rejected: reading them by Keras 2 (`tf_keras`). It would be a second Keras in the process, and runs
the code that a `.h5` file may hold.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["adapted", "objects_in"]

# Arguments of Keras 2, with the values that change nothing.
_WITHOUT_EFFECT: Final = {
    "dynamic": False,
    "groups": 1,
    "ragged": False,
    "sparse": False,
    "time_major": False,
}


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
        if kind == "Sequential":
            each["config"] = _sequential(arguments)
        elif isinstance(arguments, dict):
            if "output_layers" in arguments:
                for end in ("input_layers", "output_layers"):
                    arguments[end] = _single(arguments[end])
            elif hasattr(keras.layers, kind):
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


def _single(tensors: Any) -> Any:
    """The only tensor of a list of one; a tensor is `[layer, node, index]`."""
    if isinstance(tensors, list) and len(tensors) == 1 and isinstance(tensors[0], list):
        return tensors[0]
    return tensors


def _adapt_layer(layer: type, arguments: dict[str, Any]) -> None:
    known = inspect.signature(layer).parameters
    for key, value in _WITHOUT_EFFECT.items():
        if key in arguments and arguments[key] == value and key not in known:
            del arguments[key]
    if layer.__name__ != "InputLayer":
        arguments.pop("batch_input_shape", None)  # its model's input has it
    policy = arguments.get("dtype")
    if isinstance(policy, dict) and policy.get("class_name") in ("Policy", "PolicyV1"):
        arguments["dtype"] = policy["config"]["name"]
