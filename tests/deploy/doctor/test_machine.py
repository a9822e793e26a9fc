"""Processor, limits, name, disk: by the files of made-up machines, and of this one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import invoke
from tests.support.small_disk import small_disk

from fingerpost.deploy.doctor import model_checks
from fingerpost.deploy.doctor.examination import EXIT_ERRORS, exit_status
from fingerpost.deploy.doctor.finding import Finding, Level, error, note, ok, warning
from fingerpost.deploy.doctor.machine_checks import check_machine
from fingerpost.deploy.doctor.machine_state import MachineState, read_machine
from fingerpost.deploy.doctor.model_checks import check_models


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def bad(findings: Iterable[Finding]) -> dict[str, str]:
    found = [each for each in findings if each.level >= Level.WARNING]
    return {f"{each.level.name} {each.check}": f"{each.message} -> {each.remedy}" for each in found}


GOOD: dict[str, Any] = {
    "name": "gpu-7",
    "cores": 8,
    "flags": frozenset({"avx", "avx2"}),
    "memory_mb": 60_000,
    "synchronized": True,
    "links_mbit": {"eth0": 10_000},
}

CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "good": ({}, {}),
    "no AVX": ({"flags": frozenset({"sse2"})}, {"ERROR processor": "TensorFlow ends"}),
    "not x86": ({"flags": frozenset()}, {}),
    "a quota": ({"quota": 2.5}, {"WARNING threads": "2.5 of 8 cores"}),
    "a large quota": ({"quota": 16.0}, {}),
    "many threads": (
        {"thread_variables": {"OMP_NUM_THREADS": "64"}},
        {"WARNING threads OMP_NUM_THREADS": "OMP_NUM_THREADS=64 is more than 8 cores"},
    ),
    "few descriptors": ({"descriptors": 256}, {"ERROR descriptors": "LimitNOFILE="}),
    "some descriptors": ({"descriptors": 4096}, {"WARNING descriptors": "4,096"}),
    "no memory": ({"memory_mb": 90}, {"ERROR memory": "only 90 MB"}),
    "no name": ({"name": "localhost"}, {"ERROR name": "hostnamectl set-hostname"}),
    "a free clock": ({"synchronized": False}, {"WARNING clock": "timedatectl set-ntp true"}),
    "a slow link": ({"links_mbit": {"eth0": 100}}, {"WARNING link eth0": "100 Mbit/s"}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_named_with_its_remedy(case: str) -> None:
    changed, wanted = CASES[case]
    found = bad(check_machine(MachineState(**{**GOOD, **changed}), gpus=False))
    assert found.keys() == wanted.keys()
    for check, text in wanted.items():
        assert text in found[check]


def test_containers_without_the_toolkit() -> None:
    state = MachineState(**GOOD, engines=("podman",))
    texts = {each.check: each for each in check_machine(state, gpus=True)}
    assert texts["toolkit"].level is Level.NOTE
    assert "nvidia-ctk runtime configure" in texts["toolkit"].remedy
    assert "toolkit" not in {each.check for each in check_machine(state, gpus=False)}


PCI = "sys/bus/pci/devices"


@pytest.mark.shell
def test_a_machine_is_read_from_the_kernels_files(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nflags\t\t: fpu avx avx2\n\nprocessor : 1\n",
            "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1000000 kB\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            f"{PCI}/a/vendor": "0x10de\n", f"{PCI}/a/class": "0x030200\n",
            f"{PCI}/b/vendor": "0x10de\n", f"{PCI}/b/class": "0x040300\n",  # its sound
            f"{PCI}/c/vendor": "0x8086\n", f"{PCI}/c/class": "0x030000\n",
            "sys/class/net/eth0/speed": "100\n", "sys/class/net/eth0/operstate": "up\n",
            "sys/class/net/eth0/device/vendor": "0x8086\n",
            "sys/class/net/eth1/speed": "-1\n", "sys/class/net/eth1/operstate": "down\n",
            "tmp/nvidia-mps/control": "",
        },
    )  # fmt: skip
    state = read_machine(root, {"OMP_NUM_THREADS": "4", "HOME": "/"})
    assert state.flags == {"fpu", "avx", "avx2"}
    assert (state.quota, state.memory_mb, state.governor) == (1.5, 1024, "powersave")
    assert (state.cards, state.mps) == (1, True)
    assert state.thread_variables == {"OMP_NUM_THREADS": "4"}
    assert state.links_mbit == {"eth0": 100}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({}, None),
    ],
    ids=["v2 without", "v1 without", "v1", "none"],
)
@pytest.mark.shell
def test_the_quota_of_a_control_group(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    root = write(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert read_machine(root, {}).quota == quota


@pytest.mark.shell
def test_this_machine_can_be_read() -> None:
    state = read_machine()
    assert state.name
    assert state.cores >= 1
    assert list(check_machine(state, gpus=False))


def test_models_that_are_there(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in bad(check_models(tmp_path / "x"))["ERROR models"]
    assert "is empty" in bad(check_models(tmp_path))["ERROR models"]
    write(tmp_path, {"flowers/1/model.onnx": "x" * 2_000_000, "birds/1/model.onnx": "x"})
    assert not bad(check_models(tmp_path))
    assert not bad(check_models(tmp_path / "flowers/1/model.onnx"))


@pytest.mark.shell
def test_room_for_the_next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    with small_disk(models, 4000):
        write(models, {"flowers/1/model.onnx": "x" * 900_000, "birds/1/model.onnx": "x"})
        text = bad(check_models(models))["ERROR disk"]
        assert text == f"only 3 MB are free beside {models} -> " + REMEDY
        monkeypatch.setattr(model_checks, "ENOUGH_BYTES", 1_000_000)
        assert not bad(check_models(models))
        write(models, {f"flowers/2/{part}.bin": "x" * 800_000 for part in range(2)})
        text = bad(check_models(models))["WARNING disk"]
        assert text == f"1 MB are free beside {models}, and another flowers has 1 MB -> " + REMEDY


@pytest.mark.shell
def test_room_for_the_copies_of_signed_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, temporary = tmp_path / "models", tmp_path / "temporary"
    write(models, {"flowers/1/model.onnx": "x" * 900_000, "flowers/1/model.sig": "{}"})
    with small_disk(temporary, 400):
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        found = bad(check_models(models))
    (text,) = found.values()
    assert list(found) == ["WARNING temporary files"]
    assert "MB are free in" in text
    assert "let TMPDIR name a larger folder" in text
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert not bad(check_models(models))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert "there is no folder" in bad(check_models(models))["WARNING temporary files"]


REMEDY = "remove old versions, or use a larger disk"


def test_each_model_needs_its_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = 'framework = "python"\nclass = "mine:Mine"\n'
    write(
        tmp_path, {"flowers/1/model.onnx": "x", "mine/1/model.toml": python, "mine/1/mine.py": ""}
    )
    assert not bad(check_models(tmp_path))
    there = {"numpy": object()}
    monkeypatch.setattr(model_checks.importlib.util, "find_spec", there.get)
    assert bad(check_models(tmp_path)) == {
        "ERROR model flowers": f"{tmp_path}/flowers needs ONNX Runtime, which is not installed here"
        " -> pip install 'fingerpost[onnx]', or take the image that has it"
    }
    (text,) = bad(check_models(tmp_path / "flowers/1/model.onnx")).values()
    assert "model.onnx needs ONNX Runtime" in text
    (tmp_path / "mine/1/model.toml").write_text('framework = "pyhton"')
    there["onnxruntime"] = object()
    (text,) = bad(check_models(tmp_path)).values()
    assert "pyhton" in text
    assert text.endswith(f"-> fingerpost model check {tmp_path}/mine")


def test_only_errors_end_with_a_status_of_their_own() -> None:
    fine = [ok("a", "x"), note("b", "y")]
    assert exit_status(fine, strict=True) == 0
    assert exit_status([*fine, warning("c", "z", "do")], strict=False) == 0
    assert exit_status([*fine, warning("c", "z", "do")], strict=True) == EXIT_ERRORS
    assert exit_status([*fine, error("d", "z", "do")], strict=False) == EXIT_ERRORS


def test_a_fault_without_a_remedy_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="needs a remedy"):
        error("disk", "it is full", "")


@pytest.mark.parametrize("command", ["doctor", "join"])
def test_a_port_that_does_not_exist_is_refused(command: str) -> None:
    done = invoke(command, "--port", "70000")
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert "--port" in said
    assert "less than or equal to 65535" in said
