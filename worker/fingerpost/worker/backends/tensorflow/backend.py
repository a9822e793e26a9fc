"""TensorFlow models: SavedModel folders, Keras' files and frozen TensorFlow 1 graphs.

Each is traced into one function from a batch to scores, with its variables as constants, so that
TensorFlow's optimizer can fold as much as possible. Measured with MobileNetV2 at 224,
TensorFlow 2.21 on 2 cores: 9.7 ms instead of 16.9 for one image, 49 instead of 68 for 8, the same
scores. Rejected: XLA (13 times slower there), and calling a pruned graph without a `tf.function`
around it, which costs 3 ms per call.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.ends import only_input, output_name
from fingerpost.worker.backends.inputs import encoded_input, image_input
from fingerpost.worker.backends.pixels import predict_in_batches, score_reader
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.backends.tensorflow.constants import constant_graph, imported, needed
from fingerpost.worker.backends.tensorflow.device import claim_device
from fingerpost.worker.backends.tensorflow.keras_model import open_keras
from fingerpost.worker.backends.tensorflow.load import import_tensorflow
from fingerpost.worker.models.manifest import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.backends.pixels import ToScores
    from fingerpost.worker.models.files import ModelFiles

    # From one input tensor to the scores, and what it takes (a `tf.TensorSpec`).
    Traceable = tuple[Callable[[Any], Any], Any]

__all__ = ["TensorFlowBackend", "load"]

logger = logging.getLogger(__name__)

# The names of input and output in the classic retraining tutorial.
_TUTORIAL_INPUT: Final = "DecodeJpeg/contents"
_TUTORIAL_OUTPUT: Final = "final_result"
# Models with more bytes of variables keep them as variables. Constants are copied many times while
# they are optimized: ResNet-50 (102 MB) takes 1.2 GB more memory and twice the time to load to run
# a tenth faster; VGG16 (553 MB) takes 5 GB and a minute, and runs no faster.
_MOST_CONSTANTS: Final = 64_000_000


class TensorFlowBackend:
    """A loaded TensorFlow model. `run` maps one input tensor to scores `[N, classes]`.

    Args:
        scalar: `run` takes one encoded image, not a batch of them.
    """

    def __init__(
        self,
        tf: Any,
        run: Callable[[Any], Any],
        wanted: ImageInput,
        *,
        platform: str,
        device: str,
        to_scores: ToScores,
        scalar: bool = False,
        signature: str = "",
    ) -> None:
        self.signature = signature
        self._tf = tf
        self._run: Callable[[Any], Any] | None = run
        self._scalar = scalar
        self._to_scores = to_scores
        self.input = wanted
        self.framework = f"tensorflow {tf.__version__}"
        self.platform = platform
        self.device = device

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        return predict_in_batches(images, self.input, self._each if self._scalar else self._scores)

    def function(self, value: Any) -> Any:
        """The model's own output for an input tensor; converters can trace it."""
        assert self._run is not None, "the model is closed"  # noqa: S101
        return self._run(value)

    def close(self) -> None:
        """Free the graph and its weights."""
        self._run = None

    def _each(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return np.concatenate([self._scores(image) for image in batch])

    def _scores(self, value: Any) -> NDArray[np.float32]:
        assert self._run is not None, "the model is closed"  # noqa: S101
        output = self._run(self._tf.constant(value)).numpy()
        return self._to_scores(output, 1 if self._scalar else len(value))


def load(files: ModelFiles, config: LoadConfig) -> TensorFlowBackend:
    """Load a model from disk. Takes seconds, most of them for importing TensorFlow.

    Raises:
        ConfigurationError: TensorFlow is missing, the files are damaged, the device does not exist,
            or the model does not map one image input to one row of scores.
    """
    opener = _open_saved_model if files.path.is_dir() else _OPENERS.get(files.path.suffix)
    if opener is None:
        raise ConfigurationError(
            f"{files.path} is not a TensorFlow model: expected a SavedModel folder, a .keras or "
            ".h5 file, or a frozen graph (.pb)"
        )
    tf = import_tensorflow(keras=opener is open_keras)
    device = claim_device(tf, config)
    call, spec = opener(tf, files)
    wanted, scalar = _input(tf, files, spec)
    if spec.shape.rank is None and not wanted.encoded:  # then `model.toml` says it
        spec = tf.TensorSpec((None, *wanted.tensor_shape), spec.dtype)
    try:
        run = _compile(tf, call, spec)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"model {files.name} cannot be traced: {reason(error)}") from error
    return TensorFlowBackend(
        tf,
        run,
        wanted,
        platform=_PLATFORMS.get(opener, "tensorflow_savedmodel"),
        device=device,
        to_scores=score_reader(files.manifest),
        scalar=scalar,
        signature=files.manifest.input.signature or "",
    )


def _open_saved_model(tf: Any, files: ModelFiles) -> Traceable:
    weights = sum(each.stat().st_size for each in files.path.glob("variables/variables.data-*"))
    if weights <= _MOST_CONSTANTS:
        manifest = files.manifest
        try:
            return constant_graph(
                tf,
                files.path,
                manifest.input.name,
                manifest.output.name,
                manifest.input.signature,
            )
        except Exception as error:  # a table and the like; a damaged model fails below
            logger.info("the model is loaded by tf.saved_model: %s", reason(error))
    try:
        loaded = tf.saved_model.load(str(files.path))
    except Exception as error:
        raise ConfigurationError(
            f"SavedModel {files.path} cannot be loaded: {reason(error)}"
        ) from error
    names = list(loaded.signatures)
    name = files.manifest.input.signature or (names[0] if len(names) == 1 else "serving_default")
    if name not in names:
        known = ", ".join(names) or "none"
        raise ConfigurationError(
            f"SavedModel {files.path} has no signature {name!r} (it has: {known}): name one by "
            "input.signature in model.toml, or export it with Keras' model.export()"
        )
    function = loaded.signatures[name]
    inputs = function.structured_input_signature[1]
    source = only_input(files, inputs)
    result = output_name(files, function.structured_outputs)
    # Through `loaded`, which owns the variables and must live as long as the function.
    return (
        lambda value: loaded.signatures[name](**{source: value})[result],
        inputs[source],
    )


def _open_frozen_graph(tf: Any, files: ModelFiles) -> Traceable:
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(files.path.read_bytes())
        if not graph_def.node:
            raise ValueError("it has no nodes")
        with tf.Graph().as_default() as graph:
            tf.graph_util.import_graph_def(graph_def, name="")
    except Exception as error:
        raise ConfigurationError(f"{files.path} is not a frozen graph: {reason(error)}") from error
    manifest = files.manifest
    source = _tensor(graph, manifest.input.name or _guess_input(graph_def), "input")
    result = _tensor(graph, manifest.output.name or _TUTORIAL_OUTPUT, "output")
    call = imported(tf, needed(graph_def, [result.name]), source.name, result.name)
    return call, tf.TensorSpec(source.shape, source.dtype)


_OPENERS: Final = {
    ".keras": open_keras,
    ".h5": open_keras,
    ".hdf5": open_keras,
    ".pb": _open_frozen_graph,
}
_PLATFORMS: Final = {open_keras: "tensorflow_keras", _open_frozen_graph: "tensorflow_graphdef"}


def _compile(tf: Any, call: Callable[[Any], Any], spec: Any) -> Callable[[Any], Any]:
    """One function, with constants where that is possible, else with variables; see the module."""

    def trace(function: Callable[[Any], Any]) -> Any:
        traced = tf.function(function, input_signature=[spec], autograph=False)
        return traced, traced.get_concrete_function()

    variable, concrete = trace(call)
    if not concrete.captured_inputs:
        return cast("Callable[[Any], Any]", concrete)
    weights = sum(int(np.prod(each.shape)) * each.dtype.size for each in concrete.variables)
    if weights <= _MOST_CONSTANTS:
        try:
            from tensorflow.python.framework import convert_to_constants

            frozen = convert_to_constants.convert_variables_to_constants_v2(concrete)
            _, constant = trace(lambda value: frozen(value)[0])
        except Exception as error:  # tables and the like raise many kinds of errors
            logger.info("the model's variables stay variables: %s", reason(error))
        else:
            return cast("Callable[[Any], Any]", constant)
    # Not `concrete`, which does not keep the variables alive.
    return cast("Callable[[Any], Any]", variable)


def _input(tf: Any, files: ModelFiles, spec: Any) -> tuple[ImageInput, bool]:
    """What the input tensor takes, and whether that is a scalar."""
    shape = spec.shape
    if spec.dtype == tf.string and (shape.rank is None or shape.rank <= 1):
        scalar = shape.rank != 1
        return encoded_input(files, None if scalar else shape[0]), scalar
    sides = shape.as_list() if shape.rank is not None else None
    wanted = image_input(files, sides, spec.dtype.name, layout=Layout.NHWC, name="input")
    return wanted, False


def _guess_input(graph_def: Any) -> str:
    names = [node.name for node in graph_def.node]
    placeholders = [node.name for node in graph_def.node if node.op == "Placeholder"]
    if _TUTORIAL_INPUT in names:
        return _TUTORIAL_INPUT
    if len(placeholders) == 1:
        return str(placeholders[0])
    raise ConfigurationError(
        f"the graph has no {_TUTORIAL_INPUT} and {len(placeholders)} placeholders "
        f"({', '.join(placeholders[:5])}): name its input with --input-layer"
    )


def _tensor(graph: Any, name: str, end: str) -> Any:
    full = name if ":" in name else f"{name}:0"
    try:
        return graph.get_tensor_by_name(full)
    except (KeyError, ValueError) as error:
        names = [operation.name for operation in graph.get_operations()]
        near = difflib.get_close_matches(name.split(":")[0], names, n=3, cutoff=0.5) or names[-3:]
        raise ConfigurationError(
            f"the graph has no tensor {full!r}: give --{end}-layer one of its own, such as "
            f"{', '.join(near)}"
        ) from error
