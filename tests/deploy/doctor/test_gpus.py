"""GPUs of several shapes, through the real binding of NVML and a stub in the driver's place."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pynvml
import pytest
from tests.support.nvml import build_nvml

from fingerpost.deploy.doctor.finding import Finding, Level
from fingerpost.deploy.doctor.framework_checks import check_frameworks
from fingerpost.deploy.doctor.gpu_checks import check_gpus
from fingerpost.deploy.doctor.gpu_state import DriverProblem, GpusState, read_gpus

pytestmark = pytest.mark.shell

CUDA_12 = {"tensorflow": "2.21.0", "nvidia-cuda-runtime-cu12": "12.5.82"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(build_nvml(tmp_path_factory.mktemp("nvml"))))


@pytest.fixture
def nvml(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The binding, which has loaded the stub."""
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield pynvml
    pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.fixture
def look(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def look(shape: str) -> GpusState:
        monkeypatch.setenv("FAKE_NVML", shape)
        return read_gpus(nvml)

    return look


def bad(findings: Iterator[Finding]) -> dict[str, str]:
    found = [each for each in findings if each.level >= Level.WARNING]
    return {f"{each.level.name} {each.check}": f"{each.message} -> {each.remedy}" for each in found}


def test_a_healthy_node_has_nothing_to_mend(look: Any) -> None:
    state = look("")
    found = list(check_gpus(state, cards=2, mps=True))
    assert {each.level for each in found} <= {Level.OK, Level.NOTE}
    texts = {each.check: each.message for each in found}
    assert texts["driver"] == "NVIDIA driver 580.65.06, CUDA up to 13.0"
    assert texts["gpu 1"] == "NVIDIA H100 (GPU-00000001-fake), compute capability 9.0"
    assert texts["gpu 0 memory"] == "79,000 of 80,000 MB are free"
    assert texts["gpu 0 MIG"] == "not divided (MIG)"
    assert texts["gpu 0 clocks"] == "up to 1980 MHz, 41 degrees"
    assert texts["gpu 0 decoders"] == "engines for video and JPEG"
    assert texts["gpu 0 link"] == "PCI Express 5 x16", "an idle link is slow by itself"


SHAPES = {
    "full": {"ERROR gpu 0 memory": "only 900 of 80,000 MB"},
    "mig": {},
    "mig-empty": {"ERROR gpu 0 MIG": "into no instances"},
    "pending": {"ERROR gpu 0 MIG": "to be divided after its next reset"},
    "hot": {
        "WARNING gpu 0 clocks": "the hardware slows it down for heat, 92 degrees: 345 MHz now",
    },
    "weak-power": {"WARNING gpu 0 clocks": "its power supply slows it down"},
    "exclusive": {"WARNING gpu 0 mode": "only one process at a time"},
    "not-persistent": {"WARNING gpu 0 persistence": "nvidia-persistenced"},
    "broken-rows": {"ERROR gpu 0 memory cells": "nvidia-smi -r -i 0"},
    "narrow": {"WARNING gpu 0 link": "4 of 16 lanes"},
    "lost": {"ERROR gpu 0": "it does not answer: GPU is lost"},
    "none": {"ERROR gpus": "lists no GPU, and the PCI bus 2"},
    "unified plain no-decoder": {},
    "mismatch": {"ERROR driver": "of two versions"},
    "not-loaded": {"ERROR driver": "kernel module is not loaded -> modprobe nvidia"},
    "no-permission": {"ERROR driver": "this user may not use them"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_wrong_is_named_with_its_remedy(shape: str, look: Any) -> None:
    found = bad(check_gpus(look(shape), cards=2, mps=False))
    assert found.keys() == SHAPES[shape].keys()
    for check, text in SHAPES[shape].items():
        assert text in found[check]


def test_parts_of_a_divided_gpu_are_counted(look: Any) -> None:
    texts = {each.check: each.message for each in check_gpus(look("mig"), cards=2, mps=False)}
    assert texts["gpu 0 MIG"] == "divided into 2 instances (MIG)"


def test_a_card_that_the_driver_does_not_see(look: Any) -> None:
    found = bad(check_gpus(look(""), cards=3, mps=True))
    assert "lists 2 GPUs, the PCI bus 3" in found["ERROR gpus"]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (DriverProblem.NO_BINDING, "pip install 'fingerpost[gpu]'"),
        (DriverProblem.NO_LIBRARY, "no driver (libnvidia-ml.so.1)"),
        (DriverProblem.OTHER, "NVML fails: strange -> run nvidia-smi"),
    ],
)
def test_without_a_driver_cards_are_an_error_and_none_is_a_note(problem: str, text: str) -> None:
    state = GpusState(problem=problem, detail="strange")
    assert text in bad(check_gpus(state, cards=1, mps=False))["ERROR driver"]
    (found,) = check_gpus(state, cards=0, mps=False)
    assert (found.level, found.message) == (
        Level.NOTE,
        "no NVIDIA GPU: models run on the CPU",
    )


def test_frameworks_that_fit_the_driver(look: Any) -> None:
    assert not bad(check_frameworks(CUDA_12, look("")))


FRAMEWORKS = {
    "an old driver": (
        "old-driver",
        CUDA_12,
        {"ERROR CUDA 12": "needs driver 525 or newer, and this is 470.82.01"},
    ),
    "an old GPU": ("old-gpu", CUDA_12, {"ERROR CUDA 12": "5.0, and Tesla K80 has 3.7"}),
    "for the CPU": (
        "",
        {"tensorflow-cpu": "2.21", "onnxruntime": "1.32", "torch": "2.13+cpu"},
        {
            "WARNING tensorflow-cpu and GPU": "pip install 'tensorflow[and-cuda]'",
            "WARNING onnxruntime and GPU": "pip install 'onnxruntime-gpu'",
            "WARNING torch and GPU": "does not use the GPU",
        },
    ),
    "twice the same": (
        "",
        {"onnxruntime": "1.32", "onnxruntime-gpu": "1.32"},
        {"ERROR frameworks": "overwrite each other's files"},
    ),
    "none": ("", {}, {"WARNING frameworks": "no model can be served here; a proxy can"}),
    "NumPy": ("", {"numpy": "2.4"}, {"WARNING frameworks": "only models that are Python classes"}),
}


@pytest.mark.parametrize("case", FRAMEWORKS)
def test_frameworks_that_do_not_fit(case: str, look: Any) -> None:
    shape, packages, wanted = FRAMEWORKS[case]
    found = bad(check_frameworks(packages, look(shape)))
    assert found.keys() == wanted.keys()
    for check, text in wanted.items():
        assert text in found[check]
