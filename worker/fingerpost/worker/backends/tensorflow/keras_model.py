"""Makes one function from images to scores of any kind of Keras model.

A model states its input in one of three ways: by input layers (functional models, and Sequential
ones that were built); by the shape that it was built or called with (subclassed models); or not at
all. The outputs of the second and third kind are known only when the model is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.ends import only_input, output_name
from fingerpost.worker.backends.tensorflow.keras_file import read_keras

if TYPE_CHECKING:
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["open_keras"]


def open_keras(tf: Any, files: ModelFiles) -> tuple[Callable[[Any], Any], Any]:
    """A function from the model's input to its output, for tracing; and its `tf.TensorSpec`.

    The spec's rank is unknown where the file does not say which shape the model takes.

    Raises:
        ConfigurationError: the file cannot be loaded, or the model has several inputs.
    """
    import keras

    model = read_keras(files.path)
    was_built = model.built
    pack, spec = _input(tf, keras, model, files)

    def call(value: Any) -> Any:
        outputs = model(pack(value), training=False)
        if not was_built and model.weights:
            raise ConfigurationError(
                f"Keras model {files.path} was saved before it was built, so its weights are not "
                "in the file: call it on a batch of images, or model.build((None, HEIGHT, WIDTH, "
                "3)), train it, and save it again"
            )
        return _output(keras, model, files, outputs)

    return call, spec


def _input(tf: Any, keras: Any, model: Any, files: ModelFiles) -> tuple[Callable[[Any], Any], Any]:
    """What makes the model's argument of a tensor, and the tensor's spec."""
    tensors = getattr(model, "inputs", None)
    if tensors:
        only_input(files, [each.name for each in tensors])
        spec = tf.TensorSpec(tensors[0].shape, tensors[0].dtype)
        if isinstance(model, keras.Sequential):
            return _unchanged, spec
        structure = model.input
        return lambda value: keras.tree.pack_sequence_as(structure, [value]), spec
    built = model.get_build_config() if model.built else None
    argument = built and (built.get("input_shape") or built.get("shapes_dict"))
    shapes = dict(_leaves(argument, _is_shape))
    if not shapes:
        return _unchanged, tf.TensorSpec(None, keras.config.floatx())
    shape = shapes[only_input(files, shapes)]
    # The batch that the model was built with is not one that it needs.
    spec = tf.TensorSpec((None, *shape[1:]), keras.config.floatx())
    return lambda value: _filled(argument, value), spec


def _output(keras: Any, model: Any, files: ModelFiles, outputs: Any) -> Any:
    """The output that is wanted; its name is its key, its index, or that of its layer."""
    layers = getattr(model, "output_names", None) or ()
    tensors = keras.tree.flatten(outputs)
    by_layer: dict[str, Any] = (
        dict(zip(layers, tensors, strict=False)) if len(layers) == len(tensors) else {}
    )
    by_key: dict[str, Any] = dict(
        _leaves(outputs, lambda each: not isinstance(each, dict | list | tuple))
    )
    wanted = files.manifest.output.name
    if wanted in by_layer:
        return by_layer[wanted]
    known = by_layer if by_layer and not isinstance(outputs, dict) else by_key
    return known[output_name(files, known)]


def _unchanged(value: Any) -> Any:
    return value


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        side is None or isinstance(side, int) for side in value
    )


def _leaves(
    value: Any, is_leaf: Callable[[Any], bool], path: str = ""
) -> Iterator[tuple[str, Any]]:
    """What is in nested dictionaries and lists, by the keys and indices that lead there."""
    if value is None:
        return
    if is_leaf(value):
        yield path or "0", value
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, each in items:
        yield from _leaves(each, is_leaf, f"{path}/{key}" if path else str(key))


def _filled(structure: Any, value: Any) -> Any:
    """The structure with `value` in the place of its only shape."""
    if _is_shape(structure):
        return value
    if isinstance(structure, Mapping):
        return {key: _filled(each, value) for key, each in structure.items()}
    return [_filled(each, value) for each in structure]
