"""What is to be said of a machine beside its GPUs, by its state alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.finding import Finding, error, note, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fingerpost.deploy.doctor.machine_state import MachineState

__all__ = ["check_machine"]

# Connections of clients, and files of models and libraries.
_LEAST_DESCRIPTORS: Final = 1024
_ENOUGH_DESCRIPTORS: Final = 8192
_LEAST_MEMORY_MB: Final = 500
# TensorFlow's wheels are built with AVX since 1.6, and oneDNN chooses by the rest.
_NEEDED: Final = "avx"
_USED: Final = ("avx2", "fma", "avx512f", "avx512_vnni", "amx_int8")
_LEAST_LINK_MBIT: Final = 1000
_NAMELESS: Final = ("localhost", "localhost.localdomain", "(none)", "")


def check_machine(state: MachineState, *, gpus: bool) -> Iterator[Finding]:
    """The findings for a machine.

    Args:
        state: see `read_machine`.
        gpus: whether it has GPUs that work.
    """
    yield from _processor(state)
    yield from _threads(state)
    yield from _limits(state)
    if state.name in _NAMELESS:
        yield error(
            "name",
            f"the machine's name is {state.name or 'empty'}, as that of others is",
            "hostnamectl set-hostname NAME, with a name of its own",
        )
    else:
        yield ok("name", state.name)
    if state.synchronized is False:
        yield warning(
            "clock",
            "the kernel says that its clock follows no server",
            "timedatectl set-ntp true, or install chrony",
        )
    elif state.synchronized:
        yield ok("clock", "it follows a time server")
    if gpus and state.engines and not state.toolkit:
        yield note(
            "toolkit",
            f"{', '.join(state.engines)} cannot give GPUs to containers",
            "install nvidia-container-toolkit, and run nvidia-ctk runtime configure",
        )
    elif gpus and state.toolkit:
        yield ok("toolkit", "NVIDIA's toolkit for containers is installed")
    for name, speed in state.links_mbit.items():
        if speed < _LEAST_LINK_MBIT:
            yield warning(
                f"link {name}",
                f"its speed is {speed} Mbit/s",
                "check cable and switch: the port should have 1,000 Mbit/s or more",
            )
        else:
            yield ok(f"link {name}", f"{speed:,} Mbit/s")


def _processor(state: MachineState) -> Iterator[Finding]:
    if state.flags and _NEEDED not in state.flags:
        yield error(
            "processor",
            "it has no AVX, without which TensorFlow ends with `Illegal instruction`",
            "serve ONNX models here, or let the virtual machine have the host's processor",
        )
    elif state.flags:
        used = [each for each in _USED if each in state.flags]
        yield ok("processor", f"{state.cores} cores with {', '.join(['avx', *used])}")
    else:
        yield ok("processor", f"{state.cores} cores")
    if state.governor == "powersave":
        yield note(
            "processor clock",
            "the kernel saves power (governor powersave)",
            "cpupower frequency-set -g performance, if latency matters",
        )


def _threads(state: MachineState) -> Iterator[Finding]:
    usable = state.cores if state.quota is None else min(state.cores, state.quota)
    if usable < state.cores:
        count = max(1, int(usable))
        yield warning(
            "threads",
            f"a control group lets this process use {usable:g} of {state.cores} cores, and a "
            "worker starts one thread for each core",
            f"give the worker --threads {count}",
        )
    else:
        yield ok("threads", f"one for each of {state.cores} cores")
    for name, value in state.thread_variables.items():
        if value.isdigit() and int(value) > max(1, usable):
            yield warning(
                f"threads {name}",
                f"{name}={value} is more than {usable:g} cores",
                f"unset {name}, or set it to {max(1, int(usable))}",
            )


def _limits(state: MachineState) -> Iterator[Finding]:
    text = f"this process may have {state.descriptors:,} file descriptors"
    remedy = "raise it to 65,536: LimitNOFILE= in a unit, ulimit -n, or the container's ulimits"
    if state.descriptors < _LEAST_DESCRIPTORS:
        yield error("descriptors", text, remedy)
    elif state.descriptors < _ENOUGH_DESCRIPTORS:
        yield warning("descriptors", text, remedy)
    else:
        yield ok("descriptors", text)
    if state.memory_mb is None:
        return
    if state.memory_mb < _LEAST_MEMORY_MB:
        yield error(
            "memory",
            f"only {state.memory_mb:,} MB are free",
            "end what uses it, or give the machine more",
        )
    else:
        yield ok("memory", f"{state.memory_mb:,} MB are free")
