"""`fingerpost stream`: a folder through a cluster, killed and gone on with."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import aclosing
from pathlib import Path

from fingerpost.registry import open_registry
from fingerpost.registry.embedded.server import EmbeddedRegistry
from tests.support.consul_entries import INSTANCE
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
    (folder / "damaged.png").write_text("no image")
    (folder / "notes.txt").write_text("not an image's name")
    (folder / ".hidden.png").write_text("hidden")
    command = [*FINGERPOST, "stream", str(folder), "--model", "digits", "--proxy", proxy]
    command += ["--out", str(out), "--json"]
    everything = {str(path) for path in folder.rglob("*.png") if path.name[0] != "."}

    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_blocking(lambda: out.exists() and out.read_bytes().count(b"\n") > 100)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    before = out.read_bytes().count(b"\n")
    assert before < len(everything)

    second = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert second.returncode == 1, second.stderr  # damaged.png
    figures = json.loads(second.stdout)
    assert figures["skipped"] in {before, before - 1}  # the last line may have been cut off
    assert figures["images"] == len(everything) - figures["skipped"]
    assert figures["failed"] == 1
    assert (figures["hidden"], figures["not_images"]) == (1, 1)
    assert figures["codes"] == {"unsupported_image": 1}
    assert len(figures["workers"]) == 2
    keys = [str(line["key"]) for line in lines(out)]
    assert len(keys) == len(set(keys))
    assert set(keys) == everything
    (bad,) = [line for line in lines(out) if "error" in line]
    assert bad["error"]["code"] == "unsupported_image"  # type: ignore[index]

    third = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert third.returncode == 1  # it failed before, and still has
    assert json.loads(third.stdout)["images"] == 0
    (folder / "damaged.png").write_bytes(digits.images[0].read_bytes())
    command += ["--retry-failed"]
    fourth = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert fourth.returncode == 0, fourth.stderr
    assert json.loads(fourth.stdout)["images"] == 1


def stream(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*FINGERPOST, "stream", *(str(each) for each in arguments)],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_files_of_any_name_and_the_reasons_of_failures(
    processes: Processes, digits: Digits, tmp_path: Path
) -> None:
    proxy = processes.two_workers(digits.model).removeprefix("http://")
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(digits.images[0].read_bytes())
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    out = tmp_path / "results.jsonl"
    options = ("--model", "digits", "--proxy", proxy, "--out", out)
    done = stream(digits.images[0], digits.images[-1], text, "-", *options, stdin=raw + b"\n")
    assert done.returncode == 1
    assert b"1 x unsupported_image, such as " in done.stderr, done.stderr
    assert f"{text}: ".encode() in done.stderr
    found = {line["key"]: line for line in lines(out)}
    (odd,) = [line for line in found.values() if "key_base64" in line]
    assert base64.b64decode(str(odd["key_base64"])) == raw
    assert odd["key"] == f"{tmp_path}/caf\\xe9.png"
    assert odd["predictions"][0][0] == "0"  # type: ignore[index]
    assert set(found) - {odd["key"]} == {str(digits.images[0]), str(digits.images[-1]), str(text)}

    # The same command, and one whose results would not fit.
    again = stream(tmp_path, *options, "--json")
    assert json.loads(again.stdout)["images"] == 0, again
    other = stream(tmp_path, "--model", "digits@1", "--proxy", proxy, "--out", out)
    assert other.returncode == 1
    assert b"is a result of --model digits --top 5" in other.stderr

    # `classify` writes such a name the same way.
    name = os.fsdecode(raw)
    command = [*FINGERPOST, "classify", "--model", "digits", "--proxy", proxy, name]
    shown = subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=60)
    answer = json.loads(shown.stdout)
    assert (answer["image"], base64.b64decode(answer["image_base64"])) == (odd["key"], raw)
    plain = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert plain.stdout.startswith(f"{odd['key']}: 0 ".encode())


def test_a_mistyped_folder_is_not_a_bad_image(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    done = stream(tmp_path, "nodir", "--model", "digits", "--out", out)
    assert done.returncode == 2
    assert b"there is no file or folder 'nodir'" in done.stderr
    assert not out.exists()


async def test_what_would_help_is_an_option_of_the_command(digits: Digits) -> None:
    """All workers are drained: the message named a setting of the Python API."""
    async with EmbeddedRegistry(port=0) as server, aclosing(open_registry(server.url)) as registry:
        await (await registry.register(INSTANCE)).drain("for a test")
        program = [*FINGERPOST, "classify", "--model", INSTANCE.service, "--wait-for-ready", "0.1"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*program, "--registry", server.url, str(digits.images[0])],
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert b"wait longer for one (--wait-for-ready)" in done.stderr
    assert done.returncode == 1


def test_what_concerns_all_images_ends_the_run_at_once(
    processes: Processes, digits: Digits, tmp_path: Path
) -> None:
    proxy = processes.two_workers(digits.model)
    out = tmp_path / "results.jsonl"
    folder = digits.images[0].parent.parent
    took: list[float] = []
    for model, url, reason in (
        ("digit", proxy, "no service 'digit': .*; the models are: digits"),
        ("digits@7", proxy, "serves digits@7; its versions are 1"),
        ("digits", "127.0.0.1:9", "no proxy answered; .*127.0.0.1:9"),
    ):
        for command in (
            ("stream", folder, "--out", out),
            ("classify", *digits.images[:30]),
        ):
            began = time.monotonic()
            done = subprocess.run(
                [*FINGERPOST, *map(str, command), "--model", model, "--proxy", url],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            took.append(time.monotonic() - began)
            assert done.returncode == 1
            assert re.search(reason, done.stderr), done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert done.stdout == ""
    # A client waits 5 s for its proxy; the others are the time that a command takes to start here.
    assert max(took[4:]) < min(took[:4]) + 4.0, took
    assert out.read_bytes() == b""  # so that the next run sends every image


def test_a_service_without_workers_ends_the_run(
    processes: Processes, digits: Digits, tmp_path: Path
) -> None:
    registry = processes.registry()
    proxy = processes.proxy(registry)
    worker = processes.worker(registry, digits.model)
    processes.workers(proxy, 1)
    worker.signal(signal.SIGKILL)
    worker.wait()
    until_blocking(lambda: not processes.workers_now(proxy))
    out = tmp_path / "results.jsonl"
    options = ("--model", "digits", "--proxy", proxy, "--out", out)
    done = stream(digits.images[0].parent.parent, *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert b"no healthy worker serves it" in line or b"no service 'digits'" in line
    assert out.read_bytes() == b""
