"""The state of the GPUs and their driver, read by NVML. Nothing is judged here."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DriverProblem", "GpuState", "GpusState", "read_gpus"]


class DriverProblem:
    """Why NVML tells nothing; values of `GpusState.problem`."""

    NO_BINDING: Final = "no binding"
    NO_LIBRARY: Final = "no library"
    NOT_LOADED: Final = "not loaded"
    MISMATCH: Final = "mismatch"
    NO_PERMISSION: Final = "no permission"
    OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """One GPU; None is what it does not tell.

    Attributes:
        index, uuid, name: which one it is, by NVML's order.
        total_mb, free_mb: its memory, in units of 10**6 bytes.
        processes: how many processes compute on it.
        capability: its compute capability, such as (9, 0).
        mig, mig_pending: whether it is divided (MIG), and whether it will be after a reset.
        mig_instances: how many MIG instances it has.
        slowdown: bits of NVML's clock event reasons.
        clock_mhz, max_clock_mhz: of its processors, now and at most.
        exclusive: whether only one process at a time may use it.
        persistent: whether the driver keeps it initialized while nobody uses it.
        broken_memory: whether rows of its memory wait for a repair, or failed it.
        decoder, jpeg: whether it has an engine for video, and one for JPEG files.
        link, max_link: generation and width of PCI Express, now and at most.
        temperature: in degrees Celsius.
        lost: NVML's words, if the GPU does not answer; nothing else is known then.
    """

    index: int
    uuid: str = ""
    name: str = ""
    total_mb: int | None = None
    free_mb: int | None = None
    processes: int | None = None
    capability: tuple[int, int] | None = None
    mig: bool | None = None
    mig_pending: bool | None = None
    mig_instances: int = 0
    slowdown: int = 0
    clock_mhz: int | None = None
    max_clock_mhz: int | None = None
    exclusive: bool = False
    persistent: bool | None = None
    broken_memory: bool = False
    decoder: bool | None = None
    jpeg: bool | None = None
    link: tuple[int, int] | None = None
    max_link: tuple[int, int] | None = None
    temperature: int | None = None
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpusState:
    """All GPUs, and the driver.

    Attributes:
        driver: the driver's version, such as `580.65.06`.
        cuda: the newest CUDA that the driver knows, such as (13, 0).
        gpus: the GPUs, in NVML's order.
        problem: see `DriverProblem`; empty where NVML works.
        detail: NVML's own words for it.
    """

    driver: str = ""
    cuda: tuple[int, int] | None = None
    gpus: tuple[GpuState, ...] = ()
    problem: str = ""
    detail: str = ""


def read_gpus(nvml: Any = None) -> GpusState:
    """Ask NVML.

    Args:
        nvml: the module `pynvml`, or one like it.
    """
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError as missing:
            return GpusState(problem=DriverProblem.NO_BINDING, detail=str(missing))
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as failed:
        return GpusState(problem=_problem(nvml, failed), detail=str(failed))
    try:
        cuda = _ask(nvml, lambda: nvml.nvmlSystemGetCudaDriverVersion_v2())
        count = _ask(nvml, lambda: nvml.nvmlDeviceGetCount()) or 0
        return GpusState(
            driver=_text(_ask(nvml, lambda: nvml.nvmlSystemGetDriverVersion())),
            cuda=None if cuda is None else (cuda // 1000, cuda % 1000 // 10),
            gpus=tuple(_gpu(nvml, index) for index in range(count)),
        )
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _problem(nvml: Any, failed: Any) -> str:
    return {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: DriverProblem.NO_LIBRARY,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: DriverProblem.NOT_LOADED,
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: DriverProblem.MISMATCH,
        nvml.NVML_ERROR_NO_PERMISSION: DriverProblem.NO_PERMISSION,
    }.get(failed.value, DriverProblem.OTHER)


def _gpu(nvml: Any, index: int) -> GpuState:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError as failed:  # it fell off the bus
        return GpuState(index=index, lost=str(failed))

    def ask(name: str, *arguments: Any) -> Any:
        return _ask(nvml, lambda: getattr(nvml, name)(handle, *arguments))

    memory = ask("nvmlDeviceGetMemoryInfo")
    modes = ask("nvmlDeviceGetMigMode") or (None, None)
    processes = ask("nvmlDeviceGetComputeRunningProcesses")
    remapped = ask("nvmlDeviceGetRemappedRows")
    mode = ask("nvmlDeviceGetComputeMode")
    persistence = ask("nvmlDeviceGetPersistenceMode")
    return GpuState(
        index=index,
        uuid=uuid,
        name=_text(ask("nvmlDeviceGetName")),
        total_mb=None if memory is None else memory.total // 10**6,
        free_mb=None if memory is None else memory.free // 10**6,
        processes=None if processes is None else len(processes),
        capability=_pair(ask("nvmlDeviceGetCudaComputeCapability")),
        mig=_is(modes[0]),
        mig_pending=_is(modes[1]),
        mig_instances=_instances(nvml, handle) if modes[0] else 0,
        slowdown=ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0,
        clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        max_clock_mhz=ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        exclusive=mode == nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
        persistent=_is(persistence),
        # Correctable, uncorrectable, pending, failed.
        broken_memory=remapped is not None and bool(remapped[2] or remapped[3]),
        decoder=ask("nvmlDeviceGetDecoderUtilization") is not None,
        jpeg=ask("nvmlDeviceGetJpgUtilization") is not None,
        link=_link(ask, "Curr"),
        max_link=_link(ask, "Max"),
        temperature=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
    )


def _instances(nvml: Any, handle: Any) -> int:
    most = _ask(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    found = 0
    for index in range(most):
        with contextlib.suppress(nvml.NVMLError):  # not every instance exists
            nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            found += 1
    return found


def _link(ask: Callable[..., Any], which: str) -> tuple[int, int] | None:
    generation = ask(f"nvmlDeviceGet{which}PcieLinkGeneration")
    width = ask(f"nvmlDeviceGet{which}PcieLinkWidth")
    return None if generation is None or width is None else (generation, width)


def _ask(nvml: Any, question: Callable[[], Any]) -> Any:
    """An answer; None where this GPU, driver or binding does not know the question."""
    # An old library does not have what a new binding asks for; that is no `NVMLError`.
    too_old = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
    try:
        return question()
    except (nvml.NVMLError, too_old, AttributeError):
        return None


def _is(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _pair(value: Any) -> tuple[int, int] | None:
    return None if value is None else (int(value[0]), int(value[1]))


def _text(value: str | bytes | None) -> str:
    """Older versions of the binding give bytes."""
    return value.decode() if isinstance(value, bytes) else value or ""
