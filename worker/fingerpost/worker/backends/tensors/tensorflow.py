"""TensorFlow models with all their inputs and outputs, of the signature that `model.toml` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.backends.tensorflow.device import claim_device
from fingerpost.worker.backends.tensorflow.keras_file import read_keras
from fingerpost.worker.backends.tensorflow.load import import_tensorflow
from fingerpost.worker.backends.tensors.base import TensorSpec, flattened
from fingerpost.worker.models.formats import is_keras

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load"]

_DEFAULT: Final = "serving_default"


class TensorFlowTensors:
    """See `TensorModel`. `function` maps tensors, by the names of `inputs`, to named tensors."""

    def __init__(
        self,
        tf: Any,
        function: Callable[..., Any],
        inputs: tuple[TensorSpec, ...],
        *,
        platform: str,
        device: str,
        signature: str = "",
    ) -> None:
        self._tf = tf
        self._function: Callable[..., Any] | None = function
        self.inputs = inputs
        self.platform = platform
        self.device = device
        self.signature = signature
        self.framework = f"tensorflow {tf.__version__}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `TensorModel.run`."""
        assert self._function is not None, "the model is closed"  # noqa: S101
        tensors = {name: self._tf.constant(value) for name, value in feeds.items()}
        outputs = flattened(dict(self._function(**tensors)))
        return {name: np.asarray(value.numpy()) for name, value in outputs.items()}

    def close(self) -> None:
        """Free the graph and its weights."""
        self._function = None


def load(files: ModelFiles, config: LoadConfig) -> TensorFlowTensors:
    """Load a SavedModel folder or a Keras file. Raises `ConfigurationError`."""
    keras = is_keras(files.path)
    if not keras and not files.path.is_dir():
        raise ConfigurationError(
            f"{files.path}: task {files.manifest.task.value!r} needs a SavedModel folder or a "
            ".keras or .h5 file; a frozen graph names no outputs"
        )
    tf = import_tensorflow(keras=keras)
    device = claim_device(tf, config)
    try:
        name = ""
        if keras:
            function, inputs = _keras(tf, files)
        else:
            function, inputs, name = _signature(tf, files)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{files.path} cannot be loaded: {reason(error)}") from error
    platform = "tensorflow_keras" if keras else "tensorflow_savedmodel"
    return TensorFlowTensors(tf, function, inputs, platform=platform, device=device, signature=name)


def _signature(
    tf: Any, files: ModelFiles
) -> tuple[Callable[..., Any], tuple[TensorSpec, ...], str]:
    loaded = tf.saved_model.load(str(files.path))
    names = list(loaded.signatures)
    wanted = files.manifest.input.signature
    name = wanted or (names[0] if len(names) == 1 else _DEFAULT)
    if name not in names:
        raise ConfigurationError(
            f"SavedModel {files.path} has no signature {name!r} (input.signature); it has "
            f"{', '.join(names) or 'none'}"
        )
    specs = loaded.signatures[name].structured_input_signature[1]
    # A SavedModel keeps no order of its tensors: by name, it is the same in each process.
    # Through `loaded`, which owns the variables and must live as long as the function.
    return (
        lambda **tensors: dict(sorted(loaded.signatures[name](**tensors).items())),
        tuple(_spec(key, spec) for key, spec in sorted(specs.items())),
        name,
    )


def _keras(tf: Any, files: ModelFiles) -> tuple[Callable[..., Any], tuple[TensorSpec, ...]]:
    model = read_keras(files.path)
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise ConfigurationError(
            f"{files.path} does not say its inputs: save a functional model, or export() it"
        )
    inputs = tuple(_spec(each.name, tf.TensorSpec(each.shape, each.dtype)) for each in tensors)
    names = getattr(model, "output_names", None) or ()

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def function(**values: Any) -> Any:
        ordered = [values[each.name] for each in inputs]
        found = model(ordered[0] if len(ordered) == 1 else ordered, training=False)
        outputs = flattened(found)
        if not isinstance(found, dict) and len(names) == len(outputs):
            return dict(zip(names, outputs.values(), strict=True))
        return outputs

    return function, inputs


def _spec(name: str, spec: Any) -> TensorSpec:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    dtype = "object" if spec.dtype.name == "string" else spec.dtype.name
    return TensorSpec(name=name, dtype=dtype, shape=shape)
