"""The commands' errors: one line that names the thing and the remedy, and no traceback."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.digits import Digits
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.waiting import until_blocking


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FINGERPOST, *(str(each) for each in arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def one_line(*arguments: object) -> str:
    """Run a command that must fail; return the single line it says."""
    done = run(*arguments)
    assert done.returncode == 1, done
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("fingerpost: ")
    return lines[0]


def test_a_missing_model(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    for command in (
        ("worker", "--model", missing),
        ("classify", "--model", missing, "x.png"),
        ("up", "--model", missing),
    ):
        assert f"no model at {missing}" in one_line(*command)


def test_a_relay_without_a_proxy() -> None:
    for command in (
        ("classify", "--model", "digits", "x.png", "--relay"),
        ("classify", "--model", "digits", "x.png", "--relay", "--registry", "consul://127.0.0.1:1"),
        ("bench", "digits", "--relay", "--consul"),
    ):
        assert "--relay sends images through proxies: name them with --proxy URL" in one_line(
            *command
        )


def test_labels_that_do_not_fit(digits: Digits, tmp_path: Path, processes: Processes) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    line = one_line("classify", "--model", digits.model, "--labels", labels, digits.images[0])
    assert "gives 10 scores for an image, but has 2 labels" in line
    registry = processes.registry()
    line = one_line(
        "worker", "--model", digits.model, "--labels", labels, "--registry", registry,
        "--log-level", "error",
    )  # fmt: skip
    assert "--labels" in line


def test_a_port_in_use(digits: Digits) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in (
            ("registry", "--port", port),
            ("proxy", "--port", port),
            ("worker", "--model", digits.model, "--port", port),
        ):
            line = one_line(*command)
            assert f"127.0.0.1:{port}" in line
            assert "--port" in line


def test_a_service_whose_streams_are_closed_serves_all_the_same() -> None:
    port = free_port()
    command = f"exec {shlex.join([*FINGERPOST, 'registry', '--port', str(port)])} <&- >&- 2>&-"
    with subprocess.Popen(["/bin/sh", "-c", command]) as process:
        try:
            until_blocking(lambda: get_json(f"http://127.0.0.1:{port}/v1/status/leader"))
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_run_cluster_names_a_port_in_use_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.3", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            ["deploy/consul/run-cluster", "--serf-port", str(port), tmp_path / "cluster"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    # Another Consul may run on this machine, at the usual ports.
    assert f"port {port} of 127.0.0.3 is in use" in done.stderr or "is in use: stop" in done.stderr
    assert not (tmp_path / "cluster").exists()


def test_an_unreachable_registry(digits: Digits) -> None:
    worker = ("worker", "--model", digits.model, "--registry", "http://127.0.0.1:9")
    line = one_line(*worker, "--registry-wait", "0")
    assert "registry at http://127.0.0.1:9 cannot be reached" in line
    assert "is it running there?" in line
    for command in ("resolve", "digits"), ("status",):
        assert "127.0.0.1:9" in one_line(*command, "--registry", "http://127.0.0.1:9")
        assert "127.0.0.1:9" in one_line(*command, "--proxy", "http://127.0.0.1:9")


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8500", "http://"])
def test_a_registry_url_that_is_none(url: str) -> None:
    assert "registry URL" in one_line("proxy", "--registry", url, "--port", 0)


def test_classify_without_a_cluster(digits: Digits, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    missing = tmp_path / "missing.png"
    done = run("classify", "--model", digits.model, "--json", digits.images[0], text, missing)
    assert done.returncode == 1
    good, bad, gone = (json.loads(line) for line in done.stdout.splitlines())
    assert good["predictions"][0][0] == "0"
    assert bad["error"]["code"] == "unsupported_image"
    assert gone["error"]["code"] == "invalid_request"


def test_classify_answers_each_line_as_it_comes(digits: Digits) -> None:
    with subprocess.Popen(
        [*FINGERPOST, "classify", "--model", str(digits.model), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for image in digits.images[:: len(digits.images) // 5]:
            process.stdin.write(f"{image}\n")
            process.stdin.flush()
            # The pipe stays open: the answer must come before the next line is sent.
            assert process.stdout.readline().startswith(f"{image}: ")
        process.stdin.close()
        assert process.wait(30) == 0


def test_classify_by_name_asks_the_proxy_on_this_machine(digits: Digits, tmp_path: Path) -> None:
    """A proxy may run at the default port here, so that both answers are checked for the name."""
    line = one_line("classify", "--model", "nosuch", digits.images[0])
    local = "there is no file or folder 'nosuch' to load, and no cluster on this machine to ask"
    assert local in line or "no service 'nosuch'" in line


def test_train_on_a_bad_folder(tmp_path: Path) -> None:
    """The others are in tests/worker/training/test_dataset.py."""
    (tmp_path / "images").mkdir()
    line = one_line("train", "--images", tmp_path / "images", "--out", tmp_path / "m")
    assert "class" in line


def test_usage_errors_are_status_2() -> None:
    assert run("worker").returncode == 2
    assert run("frobnicate").returncode == 2
    assert run("--help").returncode == 0
