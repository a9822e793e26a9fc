"""Models that OpenVINO runs: its own format (`.xml` with `.bin`), ONNX, and TensorFlow Lite."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import openvino as ov

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.ends import only_input, output_name
from fingerpost.worker.backends.inputs import image_input
from fingerpost.worker.backends.openvino_weights import floated_weights
from fingerpost.worker.backends.parts import CONCURRENT_BATCHES, PartedRunner
from fingerpost.worker.backends.pixels import score_reader
from fingerpost.worker.backends.pool import Pool
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.models.runtime import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.backends.pixels import ToScores
    from fingerpost.worker.models.files import ModelFiles

__all__ = [
    "OpenVinoBackend",
    "compiled",
    "dtype_of",
    "load",
    "name_of",
    "open_model",
    "platform_of",
    "sides_of",
]

logger = logging.getLogger(__name__)

# NumPy's names for OpenVINO's element types.
_DTYPES: Final = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "boolean": "bool",
    "string": "object",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_PLATFORMS: Final = {".xml": "openvino_ir", ".onnx": "openvino_onnx", ".tflite": "openvino_tflite"}
# Of these, real numbers have a scale, and OpenVINO does not say it.
_SCALED: Final = frozenset({"int8", "int16"})


class OpenVinoBackend:
    """A loaded model. See `Backend`.

    Args:
        whole: runs each operator on several threads.
        single: several batches at once on a thread each, for the parts of a batch (see
            `PartedRunner`); None where batches are not divided.
        wanted: the model's input.
        threads: the threads, which are divided among the batches that run.
        result: the place of the output.
        to_scores: makes scores of the output.
        platform, device: see `Backend`.
    """

    def __init__(
        self,
        whole: ov.CompiledModel,
        single: ov.CompiledModel | None,
        wanted: ImageInput,
        *,
        threads: int,
        result: int,
        to_scores: ToScores,
        platform: str,
        device: str,
    ) -> None:
        self._runner = PartedRunner(
            _runner(whole, result),
            None if single is None else _runner(single, result),
            threads=threads,
            name="openvino",
        )
        self._to_scores = to_scores
        self.input = replace(wanted, concurrent_batches=CONCURRENT_BATCHES) if single else wanted
        self.platform = platform
        self.device = device
        self.framework = f"openvino {ov.__version__.partition('-')[0]}"

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        return self._runner.predict(images, self.input, self._to_scores)

    def close(self) -> None:
        """Free the model's memory."""
        self._runner.close()


def load(files: ModelFiles, config: LoadConfig) -> OpenVinoBackend:
    """Load a model from disk.

    Raises:
        ConfigurationError: the files are damaged or have operators that this version does not know,
            the device does not exist, or the model does not map one image input to one row of
            scores.
    """
    core, model = open_model(files)
    inputs = {name_of(each, files.manifest.input.name): each for each in model.inputs}
    outputs = [name_of(each, files.manifest.output.name) for each in model.outputs]
    source = inputs[only_input(files, inputs)]
    result = outputs.index(output_name(files, outputs))
    name = f"input {next(iter(inputs))!r}"
    wanted = image_input(files, sides_of(source), dtype_of(source), layout=None, name=name)
    threads = config.threads or os.cpu_count() or 1
    whole, device = compiled(core, model, files, config, config.threads)
    divisible = device == "cpu" and threads > 1 and wanted.batch is None
    return OpenVinoBackend(
        whole,
        compiled(core, model, files, config, threads, streams=threads)[0] if divisible else None,
        wanted,
        threads=threads,
        result=result,
        to_scores=score_reader(files.manifest),
        platform=platform_of(files),
        device=device,
    )


def open_model(files: ModelFiles) -> tuple[ov.Core, ov.Model]:
    """Read a model's files. Raises `ConfigurationError`."""
    core = ov.Core()
    try:
        if files.weights is None:
            model = core.read_model(files.path)
        else:
            model = core.read_model(files.path, files.weights)
    except Exception as error:  # of many kinds; all are RuntimeError for now
        raise ConfigurationError(
            f"OpenVINO cannot load {files.path}: {_short(error)}; check that the file is complete"
        ) from error
    if files.path.suffix == ".tflite":
        _check_scaled(files, model)
    return core, model


def compiled(
    core: ov.Core,
    model: ov.Model,
    files: ModelFiles,
    config: LoadConfig,
    threads: int,
    *,
    streams: int = 1,
) -> tuple[ov.CompiledModel, str]:
    """The model for a device, and the device's name: `cpu`, or that of a GPU or NPU.

    Args:
        core, model, files: see `open_model`.
        config: names the device.
        threads: all threads of all streams together; 0 is OpenVINO's choice.
        streams: how many runs at once divide the threads.

    Raises:
        ConfigurationError: the device does not exist, or it cannot run the model.
    """
    name = _device(config)
    settings: dict[str, Any] = {}
    if not name.startswith("NPU"):  # which has no other precision than its own
        # Otherwise processors with bfloat16, and GPUs, run float32 models with half the bits.
        low = files.manifest.runtime.precision is Precision.BFLOAT16
        settings["INFERENCE_PRECISION_HINT"] = "bf16" if low else "f32"
    if name == "CPU":
        if count := floated_weights(model):
            logger.info(
                "%s: %d tensors of 8-bit weights are computed in float32, because this processor "
                "has no VNNI and would cut sums off: LiteRT, or weights of 7 bits as those of "
                "`fingerpost model quantize`, are faster here",
                files.path,
                count,
            )
        settings["NUM_STREAMS"] = streams
        # Pinned, the threads of several workers on one machine would share the same cores.
        settings["ENABLE_CPU_PINNING"] = False
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
    try:
        # oneTBB gives the thread that compiles a signal stack of its own, and frees it with the
        # model, wherever that is closed: the next signal to that thread would end the process.
        with ThreadPoolExecutor(1) as apart:
            found = apart.submit(core.compile_model, model, name, settings).result()
    except Exception as error:
        if name != "CPU" and not _exists(core, name):
            known = ", ".join(_option(each) for each in core.available_devices)
            raise ConfigurationError(
                f"OpenVINO finds no {name} here for --device {config.device}, only {known}: "
                "install its driver (https://docs.openvino.ai, 'Configurations for Intel GPU' and "
                "'NPU'), let this user open /dev/dri or /dev/accel, or use --device cpu"
            ) from error
        raise ConfigurationError(
            f"OpenVINO cannot run {files.path} on {name}: {_short(error)}"
        ) from error
    return found, "cpu" if name == "CPU" else str(core.get_property(name, "FULL_DEVICE_NAME"))


def platform_of(files: ModelFiles) -> str:
    """See `Backend.platform`."""
    return _PLATFORMS.get(files.path.suffix, "openvino")


def name_of(port: Any, wanted: str | None = None) -> str:
    """The name of an input or output; of several, the one that is wanted."""
    names = port.get_names()
    own = str(port.get_node().get_friendly_name())
    for each in (wanted, own):
        if each in names:
            return str(each)
    return min(names, default=own)


def dtype_of(port: Any) -> str:
    """NumPy's name of a tensor's type, or OpenVINO's where NumPy has none."""
    name = str(port.get_element_type().get_type_name())
    return _DTYPES.get(name, name)


def sides_of(port: Any) -> tuple[int | None, ...] | None:
    """The axes of a tensor; None for one of any length, and for all where it has any rank."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(side.get_length() if side.is_static else None for side in shape)


def _runner(model: ov.CompiledModel, result: int) -> Callable[[NDArray[Any]], Any]:
    requests = Pool(model.create_infer_request)
    return partial(_scores, requests, result)


def _scores(requests: Pool[Any], result: int, batch: NDArray[Any]) -> Any:
    with requests.use() as request:
        return request.infer([batch], share_inputs=True)[result]


def _device(config: LoadConfig) -> str:
    """OpenVINO's name of the device.

    `auto` is the processor: OpenVINO's own AUTO starts there and goes on elsewhere, with other
    numbers.
    """
    kind, _, number = config.device.partition(":")
    if kind == "cuda":
        raise ConfigurationError(
            f"OpenVINO cannot use {config.device}, a GPU of NVIDIA: use --device cpu, gpu (of "
            "Intel) or npu, or serve the model as ONNX"
        )
    if kind in ("auto", "cpu"):
        return "CPU"
    return kind.upper() + (f".{number}" if number else "")


def _exists(core: ov.Core, name: str) -> bool:
    known = core.available_devices
    return name in known or any(each.startswith(f"{name}.") for each in known)


def _option(name: str) -> str:
    return name.lower().replace(".", ":")


def _check_scaled(files: ModelFiles, model: ov.Model) -> None:
    tensors = [(each, dtype_of(each)) for each in model.inputs]
    wrong = [f"{name_of(each)} ({dtype})" for each, dtype in tensors if dtype in _SCALED]
    for each in model.outputs:
        dtype = dtype_of(each)
        if dtype in _SCALED or dtype == "uint8":
            wrong.append(f"{name_of(each)} ({dtype})")
    if wrong:
        raise ConfigurationError(
            f"{files.path} is quantized at its ends, {', '.join(wrong)}, and OpenVINO does not say "
            'their scale: use framework = "litert", or convert the model with '
            "inference_input_type and inference_output_type tf.float32"
        )


def _short(error: BaseException) -> str:
    """OpenVINO's reason without the lines that name its own source files."""
    lines = str(error).splitlines()
    told = [line for line in lines if line and not line.startswith("Exception from ")]
    return reason(RuntimeError("\n".join(told) or str(error)))
