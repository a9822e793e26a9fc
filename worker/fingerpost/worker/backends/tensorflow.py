"""TensorFlow models: SavedModel folders, `.keras` files and frozen TensorFlow 1 graphs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.registry import ConfigurationError
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.backends.tensorflow_import import import_tensorflow
from fingerpost.worker.modelfiles import ModelFiles, ModelFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TensorFlowBackend", "TensorFlowOptions", "load_tensorflow"]

# What the classic retraining tutorial calls its ends.
_TUTORIAL_INPUT: Final = "DecodeJpeg/contents"
_TUTORIAL_OUTPUT: Final = "final_result"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowOptions:
    """How to load a model that does not say everything itself.

    Attributes:
        input_layer: the frozen graph's input, such as `DecodeJpeg/contents:0` or `input:0`.
        output_layer: the frozen graph's output, such as `final_result:0`.
        input_mean, input_std: a frozen graph that takes float pixels gets (pixel - mean) / std,
            as the tutorial's `label_image` feeds it. SavedModels and `.keras` files get 0..255.
        image_size: height and width in pixels where the model leaves them open.
        threads: threads for one operation; 0 leaves it to TensorFlow (one a core).
    """

    input_layer: str | None = None
    output_layer: str | None = None
    input_mean: float = 0.0
    input_std: float = 255.0
    image_size: int | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if self.input_std == 0:
            raise ConfigurationError("--input-std 0 would divide by zero: give another value")


class TensorFlowBackend:
    """A loaded TensorFlow model. `run` maps one input tensor to scores `[N, classes]`."""

    def __init__(
        self,
        tf: Any,
        run: Callable[[Any], Any],
        image_input: ImageInput,
        *,
        dtype: Any,
        scalar: bool = False,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        self._tf = tf
        self._run = run
        self._dtype = dtype
        self._scalar = scalar
        self._mean, self._std = mean, std
        self.input = image_input
        self.framework = f"tensorflow {tf.__version__}"
        gpus = tf.config.list_logical_devices("GPU")
        self.device = gpus[0].name if gpus else "cpu"

    def predict(self, images: Sequence[NDArray[np.uint8] | bytes]) -> NDArray[np.float32]:
        """Scores, float32 `[len(images), classes]`; see `Backend.predict`."""
        if self._scalar:
            return np.concatenate([self._scores(image) for image in images])
        size = self.input.batch
        if size is None:
            return self._scores(self._stack(images))
        parts = []
        for start in range(0, len(images), size):
            part = list(images[start : start + size])
            # A graph with a fixed batch gets its last image again until the batch is full.
            padded = part + part[-1:] * (size - len(part))
            parts.append(self._scores(self._stack(padded))[: len(part)])
        return np.concatenate(parts)

    def close(self) -> None:
        """Nothing but memory to free."""

    def _stack(self, images: Sequence[NDArray[np.uint8] | bytes]) -> Any:
        if self.input.encoded:
            return np.array(images, dtype=object)
        batch = np.stack(images)
        if self._dtype == np.uint8:
            return batch
        pixels = batch.astype(self._dtype)
        if (self._mean, self._std) != (0.0, 1.0):
            pixels = (pixels - self._mean) / self._std
        return pixels

    def _scores(self, value: Any) -> NDArray[np.float32]:
        scores = np.asarray(self._run(self._tf.constant(value)), dtype=np.float32)
        return scores.reshape(scores.shape[0], -1)


def load_tensorflow(files: ModelFiles, options: TensorFlowOptions) -> TensorFlowBackend:
    """Load a model from disk. Takes seconds, most of them for importing TensorFlow.

    Raises:
        ConfigurationError: TensorFlow is missing, the files are damaged, or the model does not map
            one image input to one row of scores.
    """
    tf = import_tensorflow(keras=files.format is ModelFormat.KERAS)
    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    load = {
        ModelFormat.SAVED_MODEL: _load_saved_model,
        ModelFormat.KERAS: _load_keras,
        ModelFormat.FROZEN_GRAPH: _load_frozen_graph,
    }[files.format]
    return load(tf, files, options)


def _load_saved_model(tf: Any, files: ModelFiles, options: TensorFlowOptions) -> TensorFlowBackend:
    try:
        loaded = tf.saved_model.load(str(files.path))
    except Exception as error:
        raise ConfigurationError(
            f"SavedModel {files.path} cannot be loaded: {_first_line(error)}"
        ) from error
    if "serving_default" not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise ConfigurationError(
            f"SavedModel {files.path} has no signature 'serving_default' (it has: {known}); "
            "export it with Keras' model.export()"
        )
    function = loaded.signatures["serving_default"]
    inputs = function.structured_input_signature[1]
    outputs = function.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConfigurationError(
            f"SavedModel {files.path} maps {', '.join(inputs)} to {', '.join(outputs)}: "
            "it must map one image input to one output of scores"
        )
    ((input_name, spec),) = inputs.items()
    (output_name,) = outputs

    def run(value: Any) -> Any:
        # `loaded` must stay alive: it owns the variables.
        return loaded.signatures["serving_default"](**{input_name: value})[output_name]

    return _backend(tf, files, options, run, spec.shape, spec.dtype)


def _load_keras(tf: Any, files: ModelFiles, options: TensorFlowOptions) -> TensorFlowBackend:
    import keras

    try:
        model = keras.saving.load_model(files.path, compile=False)
    except Exception as error:
        raise ConfigurationError(
            f"Keras model {files.path} cannot be loaded: {_first_line(error)}"
        ) from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigurationError(
            f"Keras model {files.path} has {len(model.inputs)} inputs and {len(model.outputs)} "
            "outputs: it must map one image input to one output of scores"
        )
    shape = tf.TensorShape(model.inputs[0].shape)
    dtype = tf.as_dtype(model.inputs[0].dtype)
    function = tf.function(
        lambda value: model(value, training=False),
        input_signature=[tf.TensorSpec(shape, dtype)],
    )
    return _backend(tf, files, options, function, shape, dtype)


def _load_frozen_graph(tf: Any, files: ModelFiles, options: TensorFlowOptions) -> TensorFlowBackend:
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(files.path.read_bytes())
        if not graph_def.node:
            raise ValueError("it has no nodes")
        wrapped = tf.compat.v1.wrap_function(
            lambda: tf.graph_util.import_graph_def(graph_def, name=""), []
        )
    except Exception as error:
        raise ConfigurationError(
            f"{files.path} is no frozen graph: {_first_line(error)}"
        ) from error
    graph = wrapped.graph
    source = _tensor(graph, options.input_layer or _guess_input(graph_def), "--input-layer")
    result = _tensor(graph, options.output_layer or _TUTORIAL_OUTPUT, "--output-layer")
    function = wrapped.prune(source, result)
    return _backend(
        tf,
        files,
        options,
        function,
        source.shape,
        source.dtype,
        mean=options.input_mean,
        std=options.input_std,
    )


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


def _tensor(graph: Any, name: str, option: str) -> Any:
    full = name if ":" in name else f"{name}:0"
    try:
        return graph.get_tensor_by_name(full)
    except (KeyError, ValueError) as error:
        names = [operation.name for operation in graph.get_operations()]
        near = difflib.get_close_matches(name.split(":")[0], names, n=3, cutoff=0.5) or names[-3:]
        raise ConfigurationError(
            f"the graph has no tensor {full!r}: give {option} one of its own, such as "
            f"{', '.join(near)}"
        ) from error


def _backend(
    tf: Any,
    files: ModelFiles,
    options: TensorFlowOptions,
    run: Callable[[Any], Any],
    shape: Any,
    dtype: Any,
    *,
    mean: float = 0.0,
    std: float = 1.0,
) -> TensorFlowBackend:
    """Understand the input tensor: encoded bytes (scalar or vector), or pixels [N, H, W, C]."""
    if dtype == tf.string and (shape.rank is None or shape.rank <= 1):
        scalar = shape.rank != 1
        image_input = ImageInput(encoded=True, batch=None if scalar else shape[0])
        return TensorFlowBackend(tf, run, image_input, dtype=object, scalar=scalar)
    if shape.rank != 4 or not (dtype.is_floating or dtype == tf.uint8):
        raise ConfigurationError(
            f"model {files.name}: its input is {dtype.name} {shape}; expected pixels "
            "[N, height, width, channels], float or uint8, or encoded images as strings"
        )
    batch, height, width, channels = shape.as_list()
    height, width = height or options.image_size, width or options.image_size
    if not height or not width:
        raise ConfigurationError(
            f"model {files.name} takes images of any size: choose one with --image-size"
        )
    if channels not in (1, 3, None):
        raise ConfigurationError(
            f"model {files.name} takes {channels} channels: expected 1 (gray) or 3 (RGB)"
        )
    image_input = ImageInput(height=height, width=width, channels=channels or 3, batch=batch)
    return TensorFlowBackend(tf, run, image_input, dtype=dtype.as_numpy_dtype, mean=mean, std=std)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0][:300]
