"""Which GPUs there are, and which of them a process takes. The machine itself may have none."""

# ruff: noqa: N802 - the fake has the names of NVML's calls

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.devices import (
    Gpu,
    Placement,
    find_gpus,
    place,
    place_processes,
    visible_gpus,
)

GB = 10**9


@dataclass
class Board:
    """What the fake NVML says of one device; `instances` are its MIG devices, None an empty one."""

    uuid: str
    name: str = "NVIDIA L4"
    total: int = 24 * GB
    instances: tuple[Board | None, ...] | None = None
    own_memory: bool = True


class FakeNvml:
    """The calls of `pynvml` that are used, as they behave on machines with GPUs."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    def __init__(self, *boards: Board, broken: bool = False) -> None:
        self._boards = boards
        self._broken = broken
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self._boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        if self._broken:
            raise self.NVMLError("GPU is lost")
        return self._boards[index]

    def nvmlDeviceGetMigMode(self, board: Board) -> tuple[int, int]:
        if board.instances is None:
            raise self.NVMLError("Not Supported")
        return (int(bool(board.instances)), 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, board: Board) -> int:
        return len(board.instances or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: Board, index: int) -> Board:
        instance = (board.instances or ())[index]
        if instance is None:
            raise self.NVMLError("Not Found")
        return instance

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> SimpleNamespace:
        if not board.own_memory:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=board.total, free=board.total - GB)

    def nvmlDeviceGetUUID(self, board: Board) -> str | bytes:
        return board.uuid

    def nvmlDeviceGetName(self, board: Board) -> bytes:
        return board.name.encode()  # as the binding did until version 11.5


A = Gpu(uuid="GPU-aaaa-1", name="NVIDIA L4", total_mb=24_000, free_mb=23_000)
B = Gpu(uuid="GPU-bbbb-2", name="NVIDIA L4", total_mb=24_000, free_mb=23_000)
MIG = Gpu(uuid="MIG-cccc-3", name="A100 MIG 1g.5gb", total_mb=5_000, free_mb=4_000)


@pytest.mark.parametrize("nvml", ["real", "fake"])
def test_the_list_is_a_list_whatever_this_machine_has(nvml: str) -> None:
    """The real library, where there is one, and the fake give the same kind of answer."""
    gpus = find_gpus() if nvml == "real" else find_gpus(FakeNvml(Board(A.uuid)))
    for gpu in gpus:
        assert gpu.uuid.startswith(("GPU-", "MIG-"))
        assert gpu.name
        assert 0 <= gpu.free_mb <= gpu.total_mb
    assert len({gpu.uuid for gpu in gpus}) == len(gpus)


def test_without_the_binding_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus() == ()


def test_whole_gpus_divided_ones_and_one_without_memory_of_its_own() -> None:
    nvml = FakeNvml(
        Board(A.uuid, instances=()),
        Board(
            "GPU-divided",
            instances=(Board(MIG.uuid, MIG.name, 5 * GB), None, Board("MIG-dddd", "x", 5 * GB)),
        ),
        Board("GPU-shared", own_memory=False),
    )
    found = find_gpus(nvml)
    assert found[:2] == (A, MIG)
    assert [gpu.uuid for gpu in found[2:]] == ["MIG-dddd", "GPU-shared"]
    assert found[3].total_mb == 0
    assert nvml.open == 0


def test_a_lost_gpu_is_told_and_nvml_closed(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml(Board(A.uuid), broken=True)
    assert find_gpus(nvml) == ()
    assert "GPU is lost" in caplog.text
    assert nvml.open == 0


VISIBLE = {
    "not set": (None, (A, B, MIG)),
    "empty": ("", ()),
    "none": ("-1", ()),
    "one": ("1", (B,)),
    "order": ("1, 0", (B, A)),
    "uuid": ("MIG-cccc-3", (MIG,)),
    "cut short": ("GPU-b", (B,)),
    "ambiguous": ("GPU-", ()),
    "up to the first that is none": ("0,7,1", (A,)),
    "nonsense": ("all", ()),
}


@pytest.mark.parametrize("case", VISIBLE)
def test_visible_devices_are_read_as_cuda_reads_them(case: str) -> None:
    text, expected = VISIBLE[case]
    environment = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    assert visible_gpus((A, B, MIG), environment) == expected


PLACES = {
    "auto": ("auto", (A, B), Placement(device="auto", gpu=A)),
    "auto without": ("auto", (), Placement(device="auto")),
    "cpu": ("cpu", (A,), Placement(device="cpu")),
    "by number": ("cuda:1", (A, B), Placement(device="cuda:0", gpu=B)),
    "by uuid": ("MIG-cccc-3", (A, MIG), Placement(device="cuda:0", gpu=MIG)),
    "cut short": ("GPU-b", (A, B), Placement(device="cuda:0", gpu=B)),
}


@pytest.mark.parametrize("case", PLACES)
def test_places(case: str) -> None:
    device, gpus, expected = PLACES[case]
    placement = place(device, gpus)
    assert placement == expected
    options = placement.load_config(threads=2)
    assert options == LoadConfig(device=expected.device, threads=2)
    # What it tells another process comes to the same.
    again = place(placement.option, gpus)
    assert (again.gpu, again.environment()) == (placement.gpu, placement.environment())


@pytest.mark.parametrize(
    ("device", "gpus", "told"),
    [
        ("cuda:2", (A, B), "1 (GPU-bbbb-2, NVIDIA L4)"),
        ("cuda:0", (), "--device cpu"),
        ("GPU-x", (A,), "no such GPU"),
        ("GPU-", (A, B), "no such GPU"),
        ("cuda", (A,), "auto, cpu, cuda:N"),
        ("cuda:-1", (A,), "auto, cpu, cuda:N"),
        ("tpu", (A,), "auto, cpu, cuda:N"),
        ("", (A,), "auto, cpu, cuda:N"),
    ],
)
def test_places_that_are_not(device: str, gpus: tuple[Gpu, ...], told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        place(device, gpus)
    assert told in raised.value.message
    assert device in raised.value.message


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_fractions_that_are_none(fraction: float) -> None:
    with pytest.raises(ConfigurationError, match="memory-fraction"):
        place("auto", (A,), memory_fraction=fraction)


def test_a_process_sees_its_device_alone() -> None:
    assert place("auto", (A, B)).environment() == {"CUDA_VISIBLE_DEVICES": A.uuid}
    assert place("cpu", (A, B)).environment() == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert place("auto", ()).environment() == {}


def test_what_the_registration_says() -> None:
    taken = place("cuda:0", (A,), memory_fraction=0.25)
    assert taken.meta("NVIDIA L4") == {
        "device": "NVIDIA L4",
        "gpu-count": "1",
        "gpu-memory-mb": "24000",
        "gpu-fraction": "0.25",
    }
    assert place("auto", (A,)).meta("cuda:0")["gpu-fraction"] == "1"
    # A framework built for the CPU alone runs there, whatever the machine has.
    assert place("auto", (A,)).meta("cpu") == {"device": "cpu"}
    assert place("auto", ()).meta("cpu") == {"device": "cpu"}
    # Where NVML is missing, what the framework says is all there is.
    assert place("auto", ()).meta("AMD Instinct MI300X") == {"device": "AMD Instinct MI300X"}


def where(*placements: Placement) -> list[tuple[str, float | None]]:
    return [(each.option, each.memory_fraction) for each in placements]


SPREADS = {
    "one": (("auto", None, 1, None), [(A.uuid, None)]),
    "all": (("auto", "all", 1, None), [(A.uuid, None), (B.uuid, None)]),
    "some": (("auto", "1", 1, 0.5), [(B.uuid, 0.5)]),
    "order and uuid": (("auto", f"1, {A.uuid}", 1, None), [(B.uuid, None), (A.uuid, None)]),
    "none": (("cuda:0", "none", 2, None), [("cpu", None)] * 2),
    "shared": (("cuda:1", None, 3, None), [(B.uuid, 0.3)] * 3),
    "share of a share": (("cuda:0", None, 4, 0.5), [(A.uuid, 0.125)] * 4),
    "all, shared": (("auto", "all", 2, 1.0), [(A.uuid, 0.5)] * 2 + [(B.uuid, 0.5)] * 2),
}


@pytest.mark.parametrize("case", SPREADS)
def test_spreads(case: str) -> None:
    (device, devices, processes, fraction), expected = SPREADS[case]
    placements = place_processes(
        device, devices, (A, B), processes=processes, memory_fraction=fraction
    )
    assert where(*placements) == expected


def test_all_devices_of_a_machine_without_gpus_are_its_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert where(*place_processes("auto", "all", ())) == [("cpu", None)]
    assert "no GPU" in caplog.text


@pytest.mark.parametrize(
    ("devices", "processes", "told"),
    [
        ("2", 1, "no such GPU"),
        ("0,0", 1, "twice"),
        (f"0,{A.uuid}", 1, "twice"),
        ("0,", 1, "--device"),
        ("all", 0, "--processes-per-device 0"),
    ],
)
def test_spreads_that_are_not(devices: str, processes: int, told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        place_processes("auto", devices, (A, B), processes=processes)
    assert told in raised.value.message


# Asks CUDA's driver itself, so that no framework built for GPUs is needed.
CUDA_SEES = """
import ctypes, uuid
cuda = ctypes.CDLL("libcuda.so.1")
assert cuda.cuInit(0) == 0
count = ctypes.c_int()
assert cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
for device in range(count.value):
    raw = (ctypes.c_ubyte * 16)()
    assert cuda.cuDeviceGetUuid_v2(ctypes.byref(raw), device) == 0
    print(uuid.UUID(bytes=bytes(raw)))
"""


@pytest.mark.shell
@pytest.mark.skipif(not find_gpus(), reason="needs an NVIDIA GPU and its driver")
def test_cuda_shows_a_process_the_one_device_it_was_placed_on() -> None:
    for gpu in visible_gpus(find_gpus(), os.environ):
        environment = {**os.environ, **place(gpu.uuid, (gpu,)).environment()}
        told = subprocess.check_output([sys.executable, "-c", CUDA_SEES], env=environment)
        assert told.decode().split() == [gpu.uuid.partition("-")[2]]
        assert gpu.total_mb >= gpu.free_mb > 0
