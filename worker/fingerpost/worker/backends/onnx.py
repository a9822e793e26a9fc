"""ONNX models, run by ONNX Runtime."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.devices import find_gpus, visible_gpus
from fingerpost.worker.backends.inputs import image_input
from fingerpost.worker.backends.pixels import predict_in_batches, to_scores
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.threads import lower_priority

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.models.manifest import Activation

__all__ = ["OnnxBackend", "load"]

_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"

# NumPy's names for ONNX's element types, where they differ.
_DTYPES: Final[dict[str, str]] = {"tensor(float)": "float32", "tensor(double)": "float64"}

_FATAL: Final = 4
"""A log level of ONNX Runtime; errors are raised as exceptions, too, and logged once by us."""

_PART_BYTES: Final = 1_250_000
_PART_LEAST: Final = 2
"""What a thread runs at a time: this many bytes of input (two images of 224 x 224), or two images.
The values between two operators then stay in the cache: on one thread MobileNetV2 takes 7.1 ms an
image so, 7.2 with four images, 7.5 with eight, and 7.5 with one."""

_CONCURRENT_BATCHES: Final = 2
"""Batches at once on a CPU. Not all threads end a batch at the same time, and with one batch those
that are early wait: 2 processors were idle for 4 % beside decoders and a server, with two 1 %."""


class OnnxBackend:
    """A loaded ONNX model. See `Backend`.

    Args:
        session: runs each operator on several threads.
        wanted: the model's input.
        single: a session with one thread. A batch with at least one image for each thread is run
            there in parts, so that no thread waits for the others at each operator: beside
            decoders, 2 cores run 1.13 times as many images.
        threads: the threads, which are divided among the batches that run.
        source, result: the names of the input and the output.
        activation: applied to the output.
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
        activation: Activation,
        device: str,
    ) -> None:
        self._session, self._single = session, single
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "onnx", lower_priority)  # start at first use
        self._calls, self._lock = 0, threading.Lock()
        self._source, self._results = source, [result]
        self._activation = activation
        self.input = replace(wanted, concurrent_batches=_CONCURRENT_BATCHES) if single else wanted
        self.device = device
        self.framework = f"onnxruntime {ort.__version__}"

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        with self._lock:
            self._calls += 1
            threads = max(1, self._threads // self._calls)
        try:
            return predict_in_batches(images, self.input, partial(self._run, threads))
        finally:
            with self._lock:
                self._calls -= 1

    def close(self) -> None:
        """Free the model's memory."""
        self._pool.shutdown()
        del self._session, self._single

    def _run(self, threads: int, batch: NDArray[Any]) -> NDArray[np.float32]:
        count = len(batch)
        if self._single is None or count < threads:
            output = self._scores(self._session, batch)
        else:
            part = max(_PART_LEAST, _PART_BYTES // batch[0].nbytes)
            parts = np.array_split(batch, min(count, threads * math.ceil(count / (threads * part))))
            run = partial(self._scores, self._single)
            output = np.concatenate(list((map if threads == 1 else self._pool.map)(run, parts)))
        return to_scores(output, self._activation, count)

    def _scores(self, session: ort.InferenceSession, batch: NDArray[Any]) -> Any:
        (output,) = session.run(self._results, {self._source: batch})
        return output


def load(files: ModelFiles, config: LoadConfig) -> OnnxBackend:
    """Load a model from disk.

    Raises:
        ConfigurationError: the file is damaged or has operators that this version does not know,
            the device does not exist, or the model does not map one image input to one row of
            scores.
    """
    session, device = _session(files, config, config.threads)
    inputs = session.get_inputs()
    if len(inputs) > 1:
        raise ConfigurationError(
            f"model {files.name} takes {', '.join(node.name for node in inputs)}: "
            "it must take images only"
        )
    source = _one(files, "input", inputs)
    result = _one(files, "output", session.get_outputs())
    wanted = image_input(
        files,
        # An input of unknown rank has no axes here.
        [side if isinstance(side, int) and side > 0 else None for side in source.shape] or None,
        _dtype(source.type),
        layout=None,
        name=f"input {source.name!r}",
    )
    threads = config.threads or os.cpu_count() or 1
    divisible = device == "cpu" and threads > 1 and wanted.batch is None
    return OnnxBackend(
        session,
        wanted,
        single=_session(files, config, 1)[0] if divisible else None,
        threads=threads,
        source=source.name,
        result=result.name,
        activation=files.manifest.output.activation,
        device=device,
    )


def _session(
    files: ModelFiles, config: LoadConfig, threads: int
) -> tuple[ort.InferenceSession, str]:
    """The model with that many threads (0: ONNX Runtime's choice), and where it runs."""
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


def _dtype(onnx_type: str) -> str:
    """NumPy's name of an element type: `float32` of `tensor(float)`."""
    return _DTYPES.get(onnx_type, onnx_type.removeprefix("tensor(").removesuffix(")"))


def _one(files: ModelFiles, end: str, nodes: Sequence[Any]) -> Any:
    """The input or output that the manifest names, or the only one."""
    wanted = getattr(files.manifest, end).name
    fitting = [node for node in nodes if wanted in (None, node.name)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(node.name for node in nodes)
    if fitting:
        raise ConfigurationError(
            f"model {files.name} has {len(nodes)} {end}s ({names}): "
            f"name one as {end}.name in model.toml"
        )
    raise ConfigurationError(
        f"model {files.name} has no {end} {wanted!r} ({end}.name); it has {names}"
    )
