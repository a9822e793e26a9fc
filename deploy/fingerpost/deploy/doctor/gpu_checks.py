"""What is to be said of the GPUs of a machine, by their state alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.finding import Finding, error, note, ok, warning
from fingerpost.deploy.doctor.gpu_state import DriverProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fingerpost.deploy.doctor.gpu_state import GpusState, GpuState

__all__ = ["check_gpus"]

# Less free memory than that loads no model beside CUDA's own context of about 0.5 GB.
_LEAST_FREE_MB: Final = 1500
# NVML's clock event reasons that slow a busy GPU down for a cause that somebody can remove:
# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
_SLOWDOWNS: Final = {
    0x08: ("the hardware slows it down", "look at its power supply and cooling (nvidia-smi -q)"),
    0x20: ("it is too hot", "cool it: clean the filters, and check the fans"),
    0x40: ("the hardware slows it down for heat", "cool it: check the fans and the paste"),
    0x80: ("its power supply slows it down", "check the power cables and the supply"),
}
_MISMATCH: Final = "restart the machine, or unload and load the module: modprobe -r nvidia"
_DRIVER: Final = "install NVIDIA's driver; on Debian and Ubuntu: apt install nvidia-driver"


def check_gpus(state: GpusState, *, cards: int, mps: bool) -> Iterator[Finding]:
    """The findings for all GPUs.

    Args:
        state: see `read_gpus`.
        cards: how many NVIDIA cards the PCI bus lists, whatever the driver says.
        mps: whether NVIDIA's multi-process service runs.
    """
    if state.problem:
        yield _driver_problem(state, cards)
        return
    cuda = f", CUDA up to {state.cuda[0]}.{state.cuda[1]}" if state.cuda else ""
    yield ok("driver", f"NVIDIA driver {state.driver or 'of an unknown version'}{cuda}")
    if not state.gpus:
        yield error(
            "gpus",
            f"the driver lists no GPU, and the PCI bus {cards}",
            "look for NVRM in the kernel's log (dmesg); give a container the GPUs",
        )
    elif len(state.gpus) < cards:
        yield error(
            "gpus",
            f"the driver lists {len(state.gpus)} GPUs, the PCI bus {cards}",
            "one does not work: look for NVRM in the kernel's log (dmesg), and restart the machine",
        )
    for gpu in state.gpus:
        yield from _gpu(gpu, mps=mps)
    yield (
        ok("mps", "NVIDIA's multi-process service runs")
        if mps
        else note(
            "mps",
            "NVIDIA's multi-process service (MPS) does not run",
            "it is of use for --processes-per-device: nvidia-cuda-mps-control -d",
        )
    )


def _driver_problem(state: GpusState, cards: int) -> Finding:
    if state.problem == DriverProblem.MISMATCH:
        text = "the driver's library and kernel module are of two versions, as after an update"
        return error("driver", text, _MISMATCH)
    if not cards:
        return note("driver", "no NVIDIA GPU: models run on the CPU")
    found = f"{cards} NVIDIA cards, but"
    match state.problem:
        case DriverProblem.NO_BINDING:
            text = f"{found} the package nvidia-ml-py is not installed, so no worker sees them"
            return error("driver", text, "pip install 'fingerpost[gpu]', or nvidia-ml-py")
        case DriverProblem.NO_LIBRARY:
            return error("driver", f"{found} no driver (libnvidia-ml.so.1)", _DRIVER)
        case DriverProblem.NOT_LOADED:
            text = f"{found} the driver's kernel module is not loaded"
            return error("driver", text, "modprobe nvidia; after a kernel update: dkms autoinstall")
        case DriverProblem.NO_PERMISSION:
            text = f"{found} this user may not use them"
            return error("driver", text, "let the user read and write /dev/nvidia*")
        case _:
            return error("driver", f"{found} NVML fails: {state.detail}", "run nvidia-smi")


def _gpu(gpu: GpuState, *, mps: bool) -> Iterator[Finding]:
    name = f"gpu {gpu.index}"
    if gpu.lost:
        yield error(
            name, f"it does not answer: {gpu.lost}", "restart the machine; if it stays, replace it"
        )
        return
    capability = ""
    if gpu.capability is not None:
        capability = f", compute capability {gpu.capability[0]}.{gpu.capability[1]}"
    yield ok(name, f"{gpu.name} ({gpu.uuid}){capability}")
    yield from _memory(gpu, name)
    yield from _mig(gpu, name)
    yield from _clocks(gpu, name)
    yield from _link(gpu, name)
    engines = [text for text, there in (("video", gpu.decoder), ("JPEG", gpu.jpeg)) if there]
    yield note(f"{name} decoders", f"engines for {' and '.join(engines) or 'nothing'}")
    if gpu.exclusive and not mps:
        yield warning(
            f"{name} mode",
            "only one process at a time may use it (exclusive process mode)",
            f"start MPS, or run nvidia-smi -i {gpu.index} -c DEFAULT, before "
            "--processes-per-device",
        )
    if gpu.persistent is False:
        yield warning(
            f"{name} persistence",
            "persistence mode is off: each first use takes seconds, and settings are lost",
            "start the service nvidia-persistenced",
        )


def _memory(gpu: GpuState, name: str) -> Iterator[Finding]:
    if gpu.broken_memory:
        yield error(
            f"{name} memory cells",
            "rows of its memory have failed and wait for a repair",
            f"drain its workers and run nvidia-smi -r -i {gpu.index}; if it stays, replace it",
        )
    if gpu.total_mb is None or gpu.free_mb is None:
        yield note(f"{name} memory", "it shares the memory of the CPU, and has no figure")
        return
    text = f"{gpu.free_mb:,} of {gpu.total_mb:,} MB are free"
    if gpu.mig or gpu.free_mb >= min(_LEAST_FREE_MB, gpu.total_mb // 2):
        yield ok(f"{name} memory", text)
        return
    users = f", {gpu.processes} processes use it" if gpu.processes else ""
    yield error(
        f"{name} memory",
        f"only {text}{users}",
        "end what uses it (nvidia-smi lists it), or give it a share with --memory-fraction",
    )


def _mig(gpu: GpuState, name: str) -> Iterator[Finding]:
    if gpu.mig is None:
        return
    if gpu.mig != gpu.mig_pending:
        yield error(
            f"{name} MIG",
            f"it is to be {'divided' if gpu.mig_pending else 'whole'} after its next reset",
            f"end what uses it, and run nvidia-smi -r -i {gpu.index}",
        )
    elif gpu.mig and not gpu.mig_instances:
        yield error(
            f"{name} MIG",
            "it is divided (MIG), but into no instances, so nothing can run on it",
            f"nvidia-smi mig -i {gpu.index} -cgi 19,19 -C makes two; "
            f"nvidia-smi -i {gpu.index} -mig 0 ends MIG",
        )
    else:
        parts = f"divided into {gpu.mig_instances} instances (MIG)"
        yield ok(f"{name} MIG", parts if gpu.mig else "not divided (MIG)")


def _clocks(gpu: GpuState, name: str) -> Iterator[Finding]:
    reasons = [each for bit, each in _SLOWDOWNS.items() if gpu.slowdown & bit]
    heat = "" if gpu.temperature is None else f", {gpu.temperature} degrees"
    for text, remedy in reasons:
        yield warning(f"{name} clocks", f"{text}{heat}: {gpu.clock_mhz} MHz now", remedy)
    if not reasons and gpu.max_clock_mhz:
        yield ok(f"{name} clocks", f"up to {gpu.max_clock_mhz} MHz{heat}")


def _link(gpu: GpuState, name: str) -> Iterator[Finding]:
    """An idle GPU lowers the generation of its link by itself, but never its width."""
    if gpu.link is None or gpu.max_link is None:
        return
    width, most = gpu.link[1], gpu.max_link[1]
    if width < most:
        yield warning(
            f"{name} link",
            f"PCI Express with {width} of {most} lanes",
            "put it into a slot with more lanes, or seat it and its riser anew",
        )
    else:
        yield ok(f"{name} link", f"PCI Express {gpu.max_link[0]} x{width}")
