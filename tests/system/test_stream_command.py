"""`fingerpost stream`: a folder through a cluster, killed and gone on with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

from tests.support.digits import Digits
from tests.support.processes import FINGERPOST, Processes
from tests.support.waiting import until_blocking


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_killed_run_is_gone_on_with(processes: Processes, digits: Digits, tmp_path: Path) -> None:
    registry = processes.registry()
    proxy = processes.proxy(registry)
    for _ in range(2):
        processes.worker(registry, digits.model)
    processes.workers(proxy, 2)
    folder, out = tmp_path / "images", tmp_path / "results.jsonl"
    for number in range(6):
        for image in digits.images[:250]:
            copy = folder / str(number) / image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, copy)
    (folder / "notes.txt").write_text("no image")
    command = [*FINGERPOST, "stream", str(folder), "--model", "digits", "--proxy", proxy]
    command += ["--out", str(out), "--json"]
    everything = {str(path) for path in folder.rglob("*") if path.is_file()}

    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_blocking(lambda: out.exists() and out.read_bytes().count(b"\n") > 100)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    before = out.read_bytes().count(b"\n")
    assert before < len(everything)

    second = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert second.returncode == 1, second.stderr  # notes.txt
    figures = json.loads(second.stdout)
    assert figures["skipped"] in {before, before - 1}  # the last line may have been cut off
    assert figures["images"] == len(everything) - figures["skipped"]
    assert figures["failed"] == 1
    assert len(figures["workers"]) == 2
    keys = [str(line["key"]) for line in lines(out)]
    assert len(keys) == len(set(keys))
    assert set(keys) == everything
    (bad,) = [line for line in lines(out) if "error" in line]
    assert bad["error"]["code"] == "unsupported_image"  # type: ignore[index]

    third = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert third.returncode == 1  # it failed before, and still has
    assert json.loads(third.stdout)["images"] == 0
    (folder / "notes.txt").write_bytes(digits.images[0].read_bytes())
    command += ["--retry-failed"]
    fourth = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert fourth.returncode == 0, fourth.stderr
    assert json.loads(fourth.stdout)["images"] == 1
