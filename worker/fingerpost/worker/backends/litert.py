"""TensorFlow Lite models (`.tflite`), run by LiteRT on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.ends import only_input, output_name
from fingerpost.worker.backends.inputs import image_input
from fingerpost.worker.backends.parts import CONCURRENT_BATCHES, PartedRunner
from fingerpost.worker.backends.pixels import score_reader
from fingerpost.worker.backends.pool import Pool
from fingerpost.worker.backends.quantization import (
    Quantization,
    QuantizedPixels,
    byte_values,
    takes_bytes,
)
from fingerpost.worker.backends.reasons import reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.backends.pixels import ToScores
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["FRAMEWORK", "LiteRtBackend", "Program", "Tensor", "load", "open_program"]

FRAMEWORK: Final = f"litert {ai_edge_litert.__version__}"
_DEFAULT: Final = "serving_default"
# Each interpreter lays out the weights anew: models of which all of them together would take more
# bytes run in one, on all threads.
_MOST_BYTES: Final = 256_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a model.

    Attributes:
        index: its number in the model.
        dtype: NumPy's name of its own type.
        shape: its axes; None for one of any length.
        quantization: how its integers are read; None where they, or floats, are the values.
    """

    index: int
    dtype: str
    shape: tuple[int | None, ...]
    quantization: Quantization | None


class Program:
    """A model in an interpreter, which one thread uses at a time.

    Attributes:
        inputs, outputs: by the names of the signature, or of the tensors where there is none.
    """

    def __init__(self, interpreter: Interpreter, signature: str | None) -> None:
        self._interpreter = interpreter
        if signature is None:
            takes = {str(each["name"]): each for each in interpreter.get_input_details()}
            gives = {str(each["name"]): each for each in interpreter.get_output_details()}
            self._run: Callable[..., dict[str, NDArray[Any]]] = self._run_tensors
        else:
            self._run = interpreter.get_signature_runner(signature)
            takes = self._run.get_input_details()  # type: ignore[attr-defined]
            gives = self._run.get_output_details()  # type: ignore[attr-defined]
        self.inputs = {name: _tensor(each) for name, each in takes.items()}
        self.outputs = {name: _tensor(each) for name, each in gives.items()}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs, of the model's own types, for inputs of any shapes that it takes."""
        return self._run(**feeds)

    def _run_tensors(self, **feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
        interpreter = self._interpreter
        for name, value in feeds.items():
            interpreter.resize_tensor_input(self.inputs[name].index, value.shape)
        interpreter.allocate_tensors()
        for name, value in feeds.items():
            interpreter.set_tensor(self.inputs[name].index, value)
        interpreter.invoke()
        return {name: interpreter.get_tensor(each.index) for name, each in self.outputs.items()}


class LiteRtBackend:
    """A loaded TensorFlow Lite model. See `Backend`.

    A model of 8 bits gets pixels as its integers where `model.toml` has no scaling, else real
    numbers, quantized; its scores are dequantized. Images of a model with a batch of 1, which most
    are, run beside each other on the threads.

    Args:
        open_with: makes a program that runs on a number of threads.
        first: one of all threads.
        wanted: the model's input.
        source, result: the names of the input and the output.
        threads: the threads, which are divided among the batches that run.
        divided: whether batches are run in parts, each on a thread.
        to_scores: makes scores of the output.
        signature: the name that `model.toml` gives, for requests that name it too.
    """

    platform = "litert_tflite"
    device = "cpu"
    framework = FRAMEWORK

    def __init__(
        self,
        open_with: Callable[[int], Program],
        first: Program,
        wanted: ImageInput,
        *,
        source: str,
        result: str,
        threads: int,
        divided: bool,
        to_scores: ToScores,
        signature: str = "",
    ) -> None:
        self.signature = signature
        taken = first.inputs[source].quantization
        given = first.outputs[result].quantization
        one = wanted.batch == 1
        self.input = replace(wanted, batch=None) if one else wanted
        divided = divided and threads > 1 and self.input.batch is None
        if divided:
            self.input = replace(self.input, concurrent_batches=CONCURRENT_BATCHES)

        def runner(count: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
            return partial(_scores, Pool(partial(open_with, count)), source, result, given)

        self._runner = PartedRunner(
            runner(threads),
            runner(1) if divided else None,
            threads=threads,
            name="litert",
            most=1 if one else None,
        )
        self._to_scores = to_scores
        self._prepare: Callable[[NDArray[Any]], NDArray[Any]] | None = None
        self._pixels: QuantizedPixels | None = None
        if taken is not None and self.input.dtype == "uint8":
            self._prepare = partial(byte_values, quantization=taken)
        elif taken is not None:
            self._prepare = taken.quantize
            self._pixels = QuantizedPixels(self.input, taken)

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        wanted, prepare = self.input, self._prepare
        if self._pixels is not None and self._pixels.fit(images):
            wanted, prepare = self._pixels.wanted, self._pixels.integers
        return self._runner.predict(images, wanted, self._to_scores, prepare)

    def close(self) -> None:
        """Free the model's memory."""
        self._runner.close()


def load(files: ModelFiles, config: LoadConfig) -> LiteRtBackend:
    """Load a model from disk.

    Raises:
        ConfigurationError: the file is damaged, has operators of TensorFlow that LiteRT lacks, the
            device is not the CPU, or the model does not map one image input to one row of scores.
    """
    threads = config.threads or os.cpu_count() or 1
    first = open_program(files, config, threads)
    source = only_input(files, first.inputs)
    result = output_name(files, first.outputs)
    tensor = first.inputs[source]
    dtype = tensor.dtype
    if tensor.quantization is not None:
        preprocessing = files.manifest.preprocessing
        dtype = "uint8" if takes_bytes(tensor.quantization, preprocessing) else "float32"
    wanted = image_input(files, tensor.shape, dtype, layout=None, name=f"input {source!r}")
    return LiteRtBackend(
        partial(open_program, files, config),
        first,
        wanted,
        source=source,
        result=result,
        threads=threads,
        divided=threads * files.path.stat().st_size <= _MOST_BYTES,
        to_scores=score_reader(files.manifest),
        signature=files.manifest.input.signature or "",
    )


def open_program(files: ModelFiles, config: LoadConfig, threads: int) -> Program:
    """The model in an interpreter of so many threads.

    Raises:
        ConfigurationError: see `load`; or it has no such signature.
    """
    if config.device not in ("auto", "cpu"):
        raise ConfigurationError(
            f"LiteRT runs models on the CPU, not on {config.device}: use --device cpu"
        )
    wanted = files.manifest.input.signature
    try:
        interpreter = Interpreter(model_path=str(files.path), num_threads=threads)
        names = list(interpreter.get_signature_list())
        if names and wanted is None:
            wanted = names[0] if len(names) == 1 else _DEFAULT
        if wanted is None or wanted in names:
            interpreter.allocate_tensors()  # tells now which operators are missing
            return Program(interpreter, wanted)
    except Exception as error:  # ValueError and RuntimeError for now
        remedy = ""
        if "Select TensorFlow op" in str(error) or "custom op" in str(error):
            remedy = (
                ": it needs operators that are not part of LiteRT; convert it with "
                "target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS], or serve the "
                "SavedModel that it was made from"
            )
        raise ConfigurationError(
            f"LiteRT cannot load {files.path}{remedy}: {reason(error)}"
        ) from error
    raise ConfigurationError(
        f"{files.path} has no signature {wanted!r} (input.signature); it has "
        f"{', '.join(names) or 'none'}"
    )


def _tensor(details: Mapping[str, Any]) -> Tensor:
    declared = details["shape_signature"]
    sides = declared if len(declared) else details["shape"]
    dtype = (
        "object" if details["dtype"] in (np.bytes_, np.str_) else np.dtype(details["dtype"]).name
    )
    scales = details["quantization_parameters"]["scales"]
    points = details["quantization_parameters"]["zero_points"]
    quantization = None
    # One scale for all: activations have no more.
    if dtype in ("uint8", "int8", "int16") and len(scales) == 1 and scales[0] > 0:
        quantization = Quantization(scale=float(scales[0]), zero_point=int(points[0]), dtype=dtype)
    return Tensor(
        index=int(details["index"]),
        dtype=dtype,
        shape=tuple(None if side < 0 else int(side) for side in sides),
        quantization=quantization,
    )


def _scores(
    programs: Pool[Program],
    source: str,
    result: str,
    quantization: Quantization | None,
    batch: NDArray[Any],
) -> NDArray[Any]:
    with programs.use() as program:
        output = program.run({source: batch})[result]
    return output if quantization is None else quantization.dequantize(output)
