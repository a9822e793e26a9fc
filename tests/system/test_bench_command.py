"""`fingerpost bench` against real workers, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.processes import FINGERPOST, Processes
from tests.support.sleeper import Sleeper
from tests.support.waiting import until_blocking


@pytest.fixture(scope="module")
def proxy(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A proxy's URL; behind it two workers whose model costs nothing."""
    model = Sleeper(tmp_path_factory.mktemp("models") / "colours", 0)
    return processes.two_workers(model.folder)


def bench(
    *arguments: object, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FINGERPOST, "bench", *(str(each) for each in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done
    return done


def test_an_open_loop_with_a_plot(proxy: str, tmp_path: Path) -> None:
    plot, figures = tmp_path / "out.png", tmp_path / "out.json"
    shown = bench(
        "colours", "--proxy", proxy, "--rate", 40, "--seconds", 2, "--warm-up", 1,
        "--plot", plot, "--json", figures,
    ).stdout  # fmt: skip
    report: dict[str, Any] = json.loads(figures.read_text())
    assert report["loop"] == "open"
    assert report["sent"] == report["answered"] > 40
    assert (report["failed"], report["not_sent"]) == (0, 0)
    assert {each["images"] > 0 for each in report["workers"]} == {True}
    assert sum(each["share"] for each in report["workers"]) == pytest.approx(1, abs=0.001)
    latency = report["response_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert report["service_ms"]["mean"] <= latency["mean"]
    assert len(report["over_time"]) == 2
    assert "open loop, 40 images/s due (poisson), 2 s after 1 s of warm-up" in shown
    for told in ("from when it was due", "sent late by this program", "p99.9", "MB/s", "worker"):
        assert told in shown
    with Image.open(plot) as image:
        assert image.format == "PNG"
        assert image.size == (900, 1000)


def test_a_closed_loop_as_json(proxy: str, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (32, 32), (200, number, 0)).save(tmp_path / f"{number}.png")
    done = bench(
        "colours", tmp_path, "--proxy", proxy, "--concurrency", 4, "--seconds", 1,
        "--warm-up", 0.5, "--policy", "round-robin", "--json", "-",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["loop"] == "closed"
    assert report["response_ms"] is None
    assert report["plan"]["concurrency"] == 4
    assert "closed loop" in report["notes"][0]
    assert len(report["workers"]) == 2


def test_a_failed_image_is_exit_status_1(proxy: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    shown = bench(
        "colours", tmp_path / "notes.txt", "--proxy", proxy, "--rate", 20, "--seconds", 0.5,
        "--warm-up", 0, code=1,
    ).stdout  # fmt: skip
    (line,) = [each for each in shown.splitlines() if each.startswith("failed")]
    assert "unsupported_image" in line


def test_ctrl_c_shows_what_was_measured(processes: Processes, proxy: str) -> None:
    workers = processes.workers(proxy, 2, "colours")

    def answers() -> float:
        found = 0.0
        for each in workers:
            with urllib.request.urlopen(f"http://{each['address']}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            for count in re.findall(r"^fingerpost_worker_images_total\S* (\S+)", text, re.M):
                found += float(count)
        return found

    def interrupted(*options: object) -> tuple[int, str]:
        before = answers()
        running = processes.start("bench", "colours", "--proxy", proxy, *options)
        until_blocking(lambda: answers() > before + 20)
        running.signal(signal.SIGINT)
        return running.wait(), running.output()

    code, shown = interrupted("--rate", 50, "--seconds", 600, "--warm-up", 0)
    assert code == 0
    assert "after 0 s of warm-up, ended early" in shown
    assert "from when it was due" in shown
    assert "Traceback" not in shown

    code, shown = interrupted("--warm-up", 600)
    assert code == 1
    assert "nothing was measured: the run ended during the warm-up" in shown


def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text(
        "raise ModuleNotFoundError('No module', name='matplotlib')"
    )
    without = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    for arguments, environment, told in (
        (["--plot", tmp_path / "a.png"], without, "pip install 'fingerpost[bench]'"),
        (["--plot", tmp_path / "a.gif"], {}, "name it .png or .svg"),
        (["--json", tmp_path / "no" / "a.json"], {}, "a.json cannot be written"),
        (["--rate", 5, "--concurrency", 2], {}, "--concurrency is for the closed loop"),
    ):
        done = bench("digits", *arguments, code=1, **environment)
        assert done.stdout == ""
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
