"""ONNX models, run by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import onnxruntime as ort

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.devices import find_gpus, visible_gpus
from fingerpost.worker.backends.ends import only_input, output_name
from fingerpost.worker.backends.inputs import image_input
from fingerpost.worker.backends.parts import CONCURRENT_BATCHES, PartedRunner
from fingerpost.worker.backends.pixels import score_reader
from fingerpost.worker.backends.reasons import reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.backends.pixels import ToScores
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["OnnxBackend", "load", "numpy_dtype", "open_session"]

_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"

# NumPy's names for ONNX's element types, where they differ.
_DTYPES: Final[dict[str, str]] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "object",
}

_FATAL: Final = 4
"""A log level of ONNX Runtime; errors are raised as exceptions, too, and logged once by us."""


class OnnxBackend:
    """A loaded ONNX model. See `Backend`.

    Args:
        session: runs each operator on several threads.
        wanted: the model's input.
        single: a session with one thread, for the parts of a batch (see `PartedRunner`).
        threads: the threads, which are divided among the batches that run.
        source, result: the names of the input and the output.
        to_scores: makes scores of the output.
        device: where it runs.
    """

    platform = "onnxruntime_onnx"

    def __init__(
        self,
        session: ort.InferenceSession,
        wanted: ImageInput,
        *,
        single: ort.InferenceSession | None,
        threads: int,
        source: str,
        result: str,
        to_scores: ToScores,
        device: str,
    ) -> None:
        run = partial(_scores, source, [result])
        self._runner = PartedRunner(
            partial(run, session),
            None if single is None else partial(run, single),
            threads=threads,
            name="onnx",
        )
        self._to_scores = to_scores
        self.input = replace(wanted, concurrent_batches=CONCURRENT_BATCHES) if single else wanted
        self.device = device
        self.framework = f"onnxruntime {ort.__version__}"

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        return self._runner.predict(images, self.input, self._to_scores)

    def close(self) -> None:
        """Free the model's memory."""
        self._runner.close()


def _scores(
    source: str, results: list[str], session: ort.InferenceSession, batch: NDArray[Any]
) -> Any:
    (output,) = session.run(results, {source: batch})
    return output


def load(files: ModelFiles, config: LoadConfig) -> OnnxBackend:
    """Load a model from disk.

    Raises:
        ConfigurationError: the file is damaged or has operators that this version does not know,
            the device does not exist, or the model does not map one image input to one row of
            scores.
    """
    session, device = open_session(files, config, config.threads)
    inputs = {node.name: node for node in session.get_inputs()}
    source = inputs[only_input(files, inputs)]
    wanted = image_input(
        files,
        # An input of unknown rank has no axes here.
        [side if isinstance(side, int) and side > 0 else None for side in source.shape] or None,
        numpy_dtype(source.type),
        layout=None,
        name=f"input {source.name!r}",
    )
    threads = config.threads or os.cpu_count() or 1
    divisible = device == "cpu" and threads > 1 and wanted.batch is None
    return OnnxBackend(
        session,
        wanted,
        single=open_session(files, config, 1)[0] if divisible else None,
        threads=threads,
        source=source.name,
        result=output_name(files, [node.name for node in session.get_outputs()]),
        to_scores=score_reader(files.manifest),
        device=device,
    )


def open_session(
    files: ModelFiles, config: LoadConfig, threads: int
) -> tuple[ort.InferenceSession, str]:
    """The model with that many threads (0: ONNX Runtime's choice), and where it runs.

    Raises:
        ConfigurationError: the file is damaged, or the device does not exist.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from those that decode images: 31 ms of CPU
    # time per image instead of 21 (MobileNetV2 and 2 decoding threads on 2 busy cores). Without
    # spinning, a single image on an idle machine takes a fifth longer.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(config)
    try:
        session = ort.InferenceSession(files.path, settings, providers=providers)
    except Exception as error:  # its errors have no common base but Exception
        raise ConfigurationError(
            f"ONNX model {files.path} cannot be loaded: {reason(error)}"
        ) from error
    if session.get_providers()[0] == _CUDA:
        index, gpus = _index(config), visible_gpus(find_gpus(), os.environ)
        return session, gpus[index].name if index < len(gpus) else f"cuda:{index}"
    if config.device.startswith("cuda"):
        raise ConfigurationError(
            f"ONNX Runtime cannot use {config.device}: its CUDA libraries do not load "
            "(check the versions of CUDA and cuDNN), or use --device cpu"
        )
    return session, "cpu"


def _providers(config: LoadConfig) -> list[Any]:
    """The execution providers, best first; the CPU runs what the GPU cannot."""
    if config.device == "cpu" or _CUDA not in ort.get_available_providers():
        if config.device.startswith("cuda"):
            raise ConfigurationError(
                f"this build of ONNX Runtime cannot use {config.device}: "
                "pip install onnxruntime-gpu instead of onnxruntime, or use --device cpu"
            )
        return [_CPU]
    index = _index(config)
    settings: dict[str, Any] = {"device_id": index}
    if config.memory_fraction is not None:
        gpus = visible_gpus(find_gpus(), os.environ)
        if index >= len(gpus):
            raise ConfigurationError(
                f"--memory-fraction needs the size of GPU {index}'s memory, which NVML does not "
                "report: pip install 'fingerpost[gpu]', or leave the option out"
            )
        settings["gpu_mem_limit"] = int(gpus[index].total_mb * 1e6 * config.memory_fraction)
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN where pip has put them
    return [(_CUDA, settings), _CPU]


def _index(config: LoadConfig) -> int:
    """The GPU's number among those that this process sees; the first for `auto`."""
    return int(config.device.partition(":")[2] or 0)


def numpy_dtype(onnx_type: str) -> str:
    """NumPy's name of an element type: `float32` of `tensor(float)`."""
    return _DTYPES.get(onnx_type, onnx_type.removeprefix("tensor(").removesuffix(")"))
