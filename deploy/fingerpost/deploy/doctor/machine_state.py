"""What the kernel tells of a machine: processor, limits, clock, cards. Nothing is judged here."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fingerpost.registry.http.descriptors import hard_descriptor_limit

__all__ = ["MachineState", "read_machine"]

_NVIDIA: Final = "0x10de"  # its number on the PCI bus
_DISPLAYS: Final = ("0x0300", "0x0302")  # classes of devices: VGA and 3D controllers
_UNSYNCHRONIZED: Final = 5  # TIME_ERROR of adjtimex(2)
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """One machine, as this process sees it; None is what it does not tell.

    Attributes:
        name: its host name.
        cores: processors that this process may use.
        quota: how many of them its control group lets it use on average.
        flags: features of the processor; empty where it is not x86.
        governor: how the kernel chooses its clock, such as `powersave`.
        thread_variables: variables that set the number of threads of libraries.
        descriptors: most file descriptors that this process may ever have.
        memory_mb: free memory, in units of 10**6 bytes.
        synchronized: whether the kernel's clock follows a server's.
        cards: NVIDIA cards on the PCI bus.
        mps: whether NVIDIA's multi-process service runs.
        engines: engines of containers that are installed.
        toolkit: whether NVIDIA's toolkit for containers is.
        links_mbit: the speed of each network link that is up, by name.
    """

    name: str
    cores: int
    quota: float | None = None
    flags: frozenset[str] = frozenset()
    governor: str | None = None
    thread_variables: Mapping[str, str] = field(default_factory=dict)
    descriptors: int = 65_536
    memory_mb: int | None = None
    synchronized: bool | None = None
    cards: int = 0
    mps: bool = False
    engines: tuple[str, ...] = ()
    toolkit: bool = False
    links_mbit: Mapping[str, int] = field(default_factory=dict)


def read_machine(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> MachineState:
    """Look at this machine.

    Args:
        root: where `proc`, `sys` and `dev` are.
        environ: the environment.
    """
    environ = os.environ if environ is None else environ
    pipes = Path(environ.get("CUDA_MPS_PIPE_DIRECTORY", str(root / "tmp/nvidia-mps")))
    return MachineState(
        name=socket.gethostname(),
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        quota=_quota(root),
        flags=_flags(root),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        thread_variables={name: environ[name] for name in THREAD_VARIABLES if name in environ},
        descriptors=hard_descriptor_limit(),
        memory_mb=_memory_mb(root),
        synchronized=_synchronized(),
        cards=_cards(root),
        mps=(pipes / "control").exists(),
        engines=tuple(each for each in ("docker", "podman", "containerd") if shutil.which(each)),
        toolkit=shutil.which("nvidia-ctk") is not None,
        links_mbit=_links(root),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None


def _flags(root: Path) -> frozenset[str]:
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _quota(root: Path) -> float | None:
    """Of control groups, version 2 or 1, as a container sees its own."""
    if text := _text(root / "sys/fs/cgroup/cpu.max"):
        given, _, period = text.partition(" ")
    else:
        given = _text(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us") or ""
        period = _text(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    if not (given.isdigit() and period.isdigit() and int(period)):
        return None  # -1 or `max` means no limit
    return int(given) / int(period)


def _memory_mb(root: Path) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 // 10**6
    return None


def _cards(root: Path) -> int:
    folders = (root / "sys/bus/pci/devices").glob("*")
    return sum(
        _text(each / "vendor") == _NVIDIA and (_text(each / "class") or "")[:6] in _DISPLAYS
        for each in folders
    )


def _links(root: Path) -> dict[str, int]:
    found = {}
    for each in sorted((root / "sys/class/net").glob("*")):
        speed = _text(each / "speed") or ""  # a link that is down, and loopback, have none
        if _text(each / "operstate") == "up" and speed.isdigit() and (each / "device").exists():
            found[each.name] = int(speed)
    return found


def _synchronized() -> bool | None:
    """What adjtimex(2) says; it changes nothing, as its first word, the modes, is 0."""
    if sys.platform != "linux":
        return None
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    return None if state < 0 else state != _UNSYNCHRONIZED
