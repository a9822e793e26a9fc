"""`fingerpost up`: supervised, and stopped cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest

from fingerpost.security.ca import make_authority
from fingerpost.security.callers.api_keys import make_key
from fingerpost.security.callers.policy_editor import add_caller
from fingerpost.security.key_files import save_public_keys, save_signing_key
from fingerpost.security.keys import SigningKey
from tests.support.digits import Digits
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.repository import write_version
from tests.support.waiting import until_blocking


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_up_keeps_workers_running_and_leaves_nothing(
    processes: Processes, digits: Digits, ending: signal.Signals
) -> None:
    port = free_port()
    proxy = f"http://127.0.0.1:{port}"
    up = processes.start(
        "up", "--model", digits.model, "--workers", 2, "--port", port,
        "--registry-port", free_port(), "--threads", 1,
    )  # fmt: skip
    before = {each["id"] for each in processes.workers(proxy, 2)}
    until_blocking(lambda: "The cluster is up" in up.output())
    children = psutil.Process(up.pid).children()
    assert len(children) == 4  # registry, proxy, 2 workers
    (victim, *_) = [each for each in children if "worker" in each.cmdline()]
    victim.kill()
    until_blocking(lambda: len({each["id"] for each in processes.workers(proxy, 2)} - before) == 1)
    children = psutil.Process(up.pid).children()
    up.signal(ending)
    assert up.wait() == (0 if ending is signal.SIGINT else -signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    assert get_json(f"{proxy}/health/live") is None
    assert "Traceback" not in up.output()


def test_up_takes_the_options_of_a_single_model(
    processes: Processes, digits: Digits, tmp_path: Path
) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("".join(f"digit {number}\n" for number in range(10)))
    port = free_port()
    given = ("--name", "numbers", "--labels", labels)
    processes.start(
        "up", "--model", digits.model, "--workers", 1, "--port", port,
        "--registry-port", free_port(), "--threads", 1, *given,
    )  # fmt: skip
    (worker,) = processes.workers(f"http://127.0.0.1:{port}", 1, "numbers")
    with urllib.request.urlopen(
        f"http://{worker['address']}/v1/classify/numbers", digits.images[0].read_bytes()
    ) as answer:
        (result,) = json.load(answer)["results"]
    assert result["predictions"][0][0].startswith("digit ")
    several = processes.start("up", "--model", digits.model, "--model", tmp_path, *given)
    assert several.wait() == 2
    assert "--name, --labels cannot be used with several models" in several.output()


def test_up_says_why_it_cannot(processes: Processes, digits: Digits) -> None:
    port = free_port()
    processes.start("registry", "--port", port)
    until_blocking(lambda: get_json(f"http://127.0.0.1:{port}/v1/status/leader"))
    up = processes.start(
        "up", "--model", digits.model, "--port", free_port(), "--registry-port", port
    )
    assert up.wait() == 1
    assert f"127.0.0.1:{port}" in up.output()
    assert "in use" in up.output()
    assert "Traceback" not in up.output()


def test_up_goes_on_without_a_model_that_is_broken_and_says_why(
    processes: Processes, tmp_path: Path
) -> None:
    for model in ("birds", "cats", "dogs"):
        write_version(tmp_path / model, 1, broken=model == "cats")
    (tmp_path / "dogs" / "versions.toml").write_text("policy = 7\n")
    port = free_port()
    up = processes.start(
        "up", "--models", tmp_path, "--workers", 2, "--port", port,
        "--registry-port", free_port(),
    )  # fmt: skip
    until_blocking(lambda: "The cluster is up" in up.output())
    told = [line for line in up.output().splitlines() if " is not served: " in line]
    assert [line.split()[0] for line in told] == ["dogs", "cats"]
    assert "policy" in told[0]
    assert "version 1: " in told[1]
    assert told[1].endswith("its weights are damaged")
    assert "--model birds" in up.output()
    assert len(processes.workers(f"http://127.0.0.1:{port}", 2, "birds")) == 2
    up.signal(signal.SIGINT)
    assert up.wait() == 0


def test_up_ends_when_no_model_can_be_served(processes: Processes, tmp_path: Path) -> None:
    for named, says in ((True, "versions.toml"), (False, "its weights are damaged")):
        folder = tmp_path / str(named) / "cats"
        write_version(folder, 1, broken=True)
        if named:
            (folder / "versions.toml").write_text("policy = 7\n")
        up = processes.start(
            "up", "--models", folder.parent, "--workers", 1, "--port", free_port(),
            "--registry-port", free_port(),
        )  # fmt: skip
        assert up.wait() == 1
        assert says in up.output().splitlines()[-1]


def test_up_with_everything_on(processes: Processes, digits: Digits, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "ca", "example.org")
    own = authority.issue("worker", "digits")
    client = authority.issue("client", "camera")
    callers = tmp_path / "callers.toml"
    key = add_caller(callers, "camera", tenant="plant", role="").key
    signing = SigningKey.generate()
    save_signing_key(signing, tmp_path / "registration.key")
    save_public_keys(signing.public, tmp_path / "registration.json")
    save_signing_key(SigningKey.generate(), tmp_path / "lease.key")
    port = free_port()
    up = processes.start(
        "up", "--model", digits.model, "--workers", 1, "--port", port,
        "--registry-port", free_port(), "--threads", 1,
        "--tls-cert", own.certificate, "--tls-key", own.key, "--tls-ca", authority.certificate,
        "--tls-client-ca", authority.certificate, "--trust-domain", "example.org",
        "--callers", callers, "--audit-log", tmp_path / "audit.log",
        "--lease-key", tmp_path / "lease.key", "--lease-bind",
        "--registration-key", tmp_path / "registration.key",
        "--registration-keys", tmp_path / "registration.json",
    )  # fmt: skip
    until_blocking(lambda: "Ctrl-C stops it" in up.output(), within_s=60.0)
    (line,) = [line for line in up.output().splitlines() if "--model digits" in line]
    # The command that it says to try, with the user's own files.
    command = line.strip().replace("FINGERPOST_API_KEY=$KEY fingerpost", "")
    for shown, real in (
        ("client.pem", client.certificate),
        ("client-key.pem", client.key),
        ("image.png", digits.images[0]),
    ):
        command = command.replace(f" {shown}", f" {real}")

    def classify(key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FINGERPOST, *command.split()],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "FINGERPOST_API_KEY": key},
        )

    done = classify(key)
    assert done.returncode == 0, (command, done.stderr, up.output())
    refused = classify(make_key())
    assert refused.returncode == 1
    assert "not known here" in refused.stderr
    assert '"who":"","tenant":""' in (tmp_path / "audit.log").read_text()
    up.signal(signal.SIGINT)
    assert up.wait() == 0
    assert key not in up.output()
