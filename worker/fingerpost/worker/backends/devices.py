"""The GPUs of this machine, and which of them a worker process uses.

They are listed by NVML, the library behind `nvidia-smi`. It needs no CUDA context (0.5 GB of the
device's memory and a second, which a supervisor must not take), and no framework. A machine without
NVML counts as one without GPUs.

The device of a process is set by `CUDA_VISIBLE_DEVICES`, as a UUID: every framework then sees
exactly one device, TensorFlow does not take memory on the others, and indices mean the same
everywhere (CUDA counts the fastest device first, NVML by slot).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import INTEL, LoadConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["VISIBLE", "Gpu", "Placement", "find_gpus", "place", "place_processes", "visible_gpus"]

logger = logging.getLogger(__name__)

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"

# The share of a GPU's memory that several processes divide: the rest is for CUDA, of which each
# process has a context of about 0.5 GB that no framework counts.
_SHARED: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A device that a process can use alone: a whole GPU, or one of its MIG instances.

    Attributes:
        uuid: `GPU-...`, or `MIG-...` for an instance.
        name: such as `NVIDIA A100-SXM4-40GB`.
        total_mb, free_mb: its memory, in units of 10**6 bytes.
    """

    uuid: str
    name: str
    total_mb: int
    free_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The device on which one worker process runs its models.

    Attributes:
        device: for the framework: `auto`, `cpu`, `cuda:N` among the devices that it sees, or
            OpenVINO's `gpu:N` and `npu`.
        gpu: the GPU; None for the CPU, and where there is no NVML.
        memory_fraction: the share of the GPU's memory that the process may take, above 0 to 1;
            None takes what is needed.
    """

    device: str
    gpu: Gpu | None = None
    memory_fraction: float | None = None

    @property
    def option(self) -> str:
        """The value of `--device` that gives the same placement in another process."""
        return self.device if self.gpu is None else self.gpu.uuid

    def environment(self) -> dict[str, str]:
        """Environment variables to set before a framework is imported."""
        if self.device == "cpu" or INTEL.fullmatch(self.device):
            return {VISIBLE: "-1"}  # or TensorFlow takes memory on GPUs that it does not use
        return {} if self.gpu is None else {VISIBLE: self.gpu.uuid}

    def load_config(self, threads: int = 0) -> LoadConfig:
        """The configuration for the backends."""
        return LoadConfig(device=self.device, memory_fraction=self.memory_fraction, threads=threads)

    def meta(self, backend_device: str) -> dict[str, str]:
        """Facts about the device for the registration.

        Args:
            backend_device: the backend's `device`, which counts, because a framework without GPU
                support runs on the CPU of any machine.
        """
        if backend_device == "cpu" or self.gpu is None:
            return {"device": backend_device}
        return {
            "device": self.gpu.name,
            "gpu-count": "1",
            "gpu-memory-mb": str(self.gpu.total_mb),
            "gpu-fraction": f"{self.memory_fraction or 1.0:g}",
        }


def find_gpus(nvml: Any = None) -> tuple[Gpu, ...]:
    """The GPUs of this machine in the order of their slots; none where NVML is missing or fails.

    A GPU that is divided (MIG) is listed as its instances, because it cannot be used as a whole.

    Args:
        nvml: the module `pynvml`, or one like it.
    """
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        logger.debug("no GPUs: %s", error)
        return ()
    try:
        return tuple(
            each
            for index in range(nvml.nvmlDeviceGetCount())
            for each in _devices(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
        )
    except nvml.NVMLError as error:
        logger.warning("the GPUs cannot be listed: %s", error)
        return ()
    finally:
        nvml.nvmlShutdown()


def visible_gpus(gpus: tuple[Gpu, ...], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` lists, in its order; schedulers share GPUs by it.

    It is read as CUDA reads it: indices or UUIDs, which may be cut short, up to the first that is
    not valid.
    """
    if VISIBLE not in environment:
        return gpus
    found: list[Gpu] = []
    for text in environment[VISIBLE].split(","):
        gpu = _find(gpus, text.strip())
        if gpu is None:
            break
        found.append(gpu)
    return tuple(found)


def place(device: str, gpus: tuple[Gpu, ...], *, memory_fraction: float | None = None) -> Placement:
    """The device of a process that was started with `--device`.

    Args:
        device: `auto` (the first GPU, or the CPU), `cpu`, `cuda:N`, or a GPU's UUID; for
            OpenVINO `gpu`, `gpu:N` or `npu`, which it looks for itself.
        gpus: those that are visible.

    Raises:
        ConfigurationError: there is no such device, or the fraction is not valid.
    """
    if memory_fraction is not None and not (
        math.isfinite(memory_fraction) and 0 < memory_fraction <= 1
    ):
        raise ConfigurationError(
            f"--memory-fraction {memory_fraction}: it must be above 0 and at most 1"
        )
    if device == "cpu":
        return Placement(device="cpu")
    if INTEL.fullmatch(device):
        return Placement(device=device)
    if device == "auto":
        gpu = gpus[0] if gpus else None
        return Placement(device="auto", gpu=gpu, memory_fraction=memory_fraction)
    kind, _, number = device.partition(":")
    if kind == "cuda" and number.isascii() and number.isdigit():
        gpu = _find(gpus, number)
    elif device.startswith(("GPU-", "MIG-")):
        gpu = _find(gpus, device)
    else:
        raise ConfigurationError(
            f"--device {device}: use auto, cpu, cuda:N or a GPU's UUID (nvidia-smi -L), or gpu, "
            "gpu:N or npu with OpenVINO"
        )
    if gpu is None:
        raise ConfigurationError(f"--device {device}: there is no such GPU here; {_list(gpus)}")
    return Placement(device="cuda:0", gpu=gpu, memory_fraction=memory_fraction)


def place_processes(
    device: str,
    devices: str | None,
    gpus: tuple[Gpu, ...],
    *,
    processes: int = 1,
    memory_fraction: float | None = None,
) -> tuple[Placement, ...]:
    """The device of each process that `--devices` and `--processes-per-device` start.

    Args:
        device: `--device`; used where `devices` is None.
        devices: `all` (every GPU; the CPU of a machine that has none), `none` (the CPU), or
            indices and UUIDs, separated by commas.
        processes: the number of processes on each device.
        memory_fraction: the share of its memory that the processes on one device may take
            together. By default one process may take all, and several share 0.9.

    Raises:
        ConfigurationError: see `place`.
    """
    if processes < 1:
        raise ConfigurationError(f"--processes-per-device {processes}: there must be 1 or more")
    if memory_fraction is None and processes > 1:
        memory_fraction = _SHARED
    chosen = [
        place(each, gpus, memory_fraction=memory_fraction) for each in _named(device, devices, gpus)
    ]
    if len({each.option for each in chosen}) < len(chosen):
        raise ConfigurationError(
            f"--devices {devices} names a device twice: use --processes-per-device"
        )
    return tuple(
        Placement(
            device=each.device,
            gpu=each.gpu,
            memory_fraction=each.memory_fraction and round(each.memory_fraction / processes, 4),
        )
        for each in chosen
        for _ in range(processes)
    )


def _named(device: str, devices: str | None, gpus: tuple[Gpu, ...]) -> list[str]:
    """The argument `device` of `place` for each device."""
    if devices is None:
        return [device]
    if devices == "none":
        return ["cpu"]
    if devices == "all":
        if not gpus:
            logger.warning("--devices all: this machine has no GPU, so its CPU is used")
            return ["cpu"]
        return [gpu.uuid for gpu in gpus]
    names = [text.strip() for text in devices.split(",")]
    return [f"cuda:{name}" if name.isdigit() else name for name in names]


def _find(gpus: tuple[Gpu, ...], text: str) -> Gpu | None:
    """The GPU with that index or UUID; a UUID may be cut short as long as it fits only one."""
    if text.isascii() and text.isdigit():
        return gpus[int(text)] if int(text) < len(gpus) else None
    fitting = [gpu for gpu in gpus if text and gpu.uuid.startswith(text)]
    return fitting[0] if len(fitting) == 1 else None


def _list(gpus: tuple[Gpu, ...]) -> str:
    if not gpus:
        return (
            "NVML finds none: use --device cpu, or check that nvidia-smi lists it and that "
            "'fingerpost[gpu]' is installed"
        )
    return "there is " + ", ".join(f"{i} ({gpu.uuid}, {gpu.name})" for i, gpu in enumerate(gpus))


def _devices(nvml: Any, handle: Any) -> Iterator[Gpu]:
    """A GPU, or its MIG instances."""
    try:
        divided = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # most GPUs cannot be divided
        divided = False
    if not divided:
        yield _gpu(nvml, handle)
        return
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:  # not every instance exists
            continue
        yield _gpu(nvml, instance)


def _gpu(nvml: Any, handle: Any) -> Gpu:
    total = free = 0
    with contextlib.suppress(nvml.NVMLError):  # a GPU that shares the CPU's memory has no figure
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = memory.total, memory.free
    return Gpu(
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_mb=total // 10**6,
        free_mb=free // 10**6,
    )


def _text(value: str | bytes) -> str:
    """Older versions of the binding give bytes."""
    return value.decode() if isinstance(value, bytes) else value
