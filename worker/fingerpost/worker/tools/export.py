"""Converts a TensorFlow or Keras model to ONNX, and compares the answers of both.

tf2onnx converts a traced function, so every kind of TensorFlow model is converted alike. Rejected:
Keras' own `model.export(format="onnx")`, which also calls tf2onnx, patches NumPy meanwhile, and
cannot convert SavedModels and frozen graphs; and Keras on PyTorch with `torch.onnx`, which
needs a second framework and fails on layers that are TensorFlow's.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from fingerpost.errors import ConfigurationError, ImageError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.backends.tensorflow.load import import_tensorflow
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import (
    MANIFEST,
    Framework,
    InputSpec,
    Manifest,
    OutputSpec,
    write_manifest,
)

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import Backend, ImageInput
    from fingerpost.worker.backends.tensorflow.backend import TensorFlowBackend
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["LABELS", "MODEL", "OPSET", "Comparison", "compare", "export_onnx", "write_labels"]

OPSET: Final = 18
"""The ONNX opset (2022): all that tf2onnx 1.17 needs, and old enough for all current runtimes."""

MODEL: Final = "model.onnx"
LABELS: Final = "labels.txt"
_BATCH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two models answered the same images.

    Attributes:
        images: the number of images.
        agreed: the number of images with the same best class.
        difference: the largest difference between a score of the two models, as a share of the
            largest score (or of 1 where all scores are smaller, as probabilities are).
        variety: the largest difference between two scores of the first model for the same class,
            likewise. Where it is tiny, the model answers all images alike, and the comparison says
            little.
    """

    images: int
    agreed: int
    difference: float
    variety: float


def export_onnx(
    files: ModelFiles, out: Path, images: Iterable[bytes], *, tolerance: float
) -> Comparison:
    """Write a folder with `model.onnx`, `model.toml` and the labels, if both models answer alike.

    It appears complete and compared, or not at all, because a worker may be scanning its parent.
    The graph has the input and the output of the original, with a batch of any size if that has
    one, so the preprocessing in `model.toml` is the same, too.

    Args:
        files: the original.
        out: the new folder, such as `models/flowers/4`; its parents are created.
        images: encoded images to compare the answers on.
        tolerance: the largest `Comparison.difference` with which the folder is written.

    Raises:
        ConfigurationError: `out` exists, the model is not one of TensorFlow or cannot be loaded,
            tf2onnx is missing, or the graph has operators that ONNX does not have.
    """
    if out.exists():
        raise ConfigurationError(f"{out} exists already: name a folder that does not")
    if files.manifest.framework is not Framework.TENSORFLOW:
        raise ConfigurationError(
            f"model {files.name} is of framework {files.manifest.framework.value!r}: only those of "
            "TensorFlow and Keras are converted here (for PyTorch there is torch.onnx.export)"
        )
    options = LoadConfig(device="cpu")
    original = cast("TensorFlowBackend", load_backend(files, options))
    if original.input.encoded:
        raise ConfigurationError(
            f"model {files.name} decodes images itself, which ONNX cannot: "
            "name a tensor behind the decoder as input.name in model.toml"
        )
    model = _convert(files, original)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        (folder / MODEL).write_bytes(model)
        write_labels(folder, files.labels)
        write_manifest(folder / MANIFEST, _manifest(files, original.input))
        made = find_model(folder, version=files.version, served=False)
        found = compare(original, load_backend(made, options), images)
        if found.difference <= tolerance:
            folder.rename(out)
    return found


def write_labels(folder: Path, labels: Sequence[str]) -> None:
    """Write `labels.txt`; nothing where there are none."""
    if labels:
        text = "".join(f"{label}\n" for label in labels)
        (folder / LABELS).write_text(text, encoding="utf-8")


def compare(first: Backend, second: Backend, images: Iterable[bytes]) -> Comparison:
    """Run both models on each image; images that cannot be decoded are skipped.

    Raises:
        ConfigurationError: no image could be decoded, or the numbers of classes differ.
    """
    count = agreed = 0
    scale, difference = 1.0, 0.0
    low, high = np.float32(np.inf), np.float32(-np.inf)  # per class, once there are any
    for part in _chunks(_decoded(images, (first.input, second.input)), _BATCH):
        ours, theirs = first.predict([a for a, _ in part]), second.predict([b for _, b in part])
        if ours.shape != theirs.shape:
            raise ConfigurationError(
                f"the models do not have the same classes: {ours.shape[1]} and {theirs.shape[1]}"
            )
        scale = max(scale, float(np.abs(ours).max()))
        difference = max(difference, float(np.abs(ours - theirs).max()))
        low, high = np.minimum(low, ours.min(axis=0)), np.maximum(high, ours.max(axis=0))
        agreed += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        count += len(part)
    if not count:
        raise ConfigurationError("none of the images can be decoded: give others")
    return Comparison(
        images=count,
        agreed=agreed,
        difference=difference / scale,
        variety=float((high - low).max()) / scale,
    )


def _convert(files: ModelFiles, backend: TensorFlowBackend) -> bytes:
    try:
        onnx, tf2onnx = importlib.import_module("onnx"), importlib.import_module("tf2onnx")
    except ImportError as error:
        raise ConfigurationError(
            f"tf2onnx cannot be imported ({error}): pip install 'fingerpost[export]'"
        ) from error
    tf = import_tensorflow()
    wanted = backend.input
    spec = tf.TensorSpec((wanted.batch, *wanted.tensor_shape), wanted.dtype, name="image")
    function = tf.function(
        lambda image: {"scores": backend.function(image)}, input_signature=[spec]
    )
    try:
        with _quiet():
            model, _ = tf2onnx.convert.from_function(
                function,
                input_signature=[spec],
                opset=OPSET,
                custom_op_handlers={"Erfc": (_erfc, [])},
            )
        onnx.checker.check_model(model)  # tf2onnx keeps operators that ONNX does not have
    except Exception as error:  # of many kinds, with the operator in the message
        raise ConfigurationError(
            f"model {files.name} cannot be converted to ONNX: {reason(error)}"
        ) from error
    for tensor in (*model.graph.input, *model.graph.output):
        batch = tensor.type.tensor_type.shape.dim[0]
        if not batch.dim_value:
            batch.dim_param = "N"
    serialized: bytes = model.SerializeToString()
    return serialized


def _erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """Erfc(x) is 1 - Erf(x). TensorFlow's exact GELU has it; ONNX and tf2onnx 1.17 do not."""
    utils = importlib.import_module("tf2onnx.utils")
    dtype = utils.map_onnx_to_numpy_type(graph.get_dtype(node.input[0]))
    one = graph.make_const(f"{name}_one", np.array(1, dtype))
    erf = graph.make_node("Erf", [node.input[0]])
    node.type = "Sub"
    graph.replace_inputs(node, [one.output[0], erf.output[0]])


def _manifest(files: ModelFiles, wanted: ImageInput) -> Manifest:
    return Manifest(
        framework=Framework.ONNX,
        file=MODEL,
        labels=LABELS if files.labels else None,
        input=InputSpec(
            height=wanted.height,
            width=wanted.width,
            channels=wanted.channels,
            layout=wanted.layout,
        ),
        preprocessing=wanted.preprocessing,
        output=OutputSpec(activation=files.manifest.output.activation),
        batch=files.manifest.batch,
    )


def _decoded(
    images: Iterable[bytes], wanted: tuple[ImageInput, ImageInput]
) -> Iterator[tuple[Any, ...]]:
    for data in images:
        with contextlib.suppress(ImageError):
            yield tuple(prepare(data, each, ImageConfig()) for each in wanted)


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence tf2onnx, which logs every operator that it does not know, each time it meets it."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
