"""Callers, roles and audit logs with the commands that an operator runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.pictures import photo, save
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.repository import write_version
from tests.support.waiting import until_blocking


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FINGERPOST, *(str(each) for each in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def status(url: str, key: str = "", method: str = "GET") -> int:
    request = urllib.request.Request(url, method=method)  # noqa: S310 - loopback
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def lines(file: Path) -> list[dict[str, str]]:
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def test_from_the_first_key_to_a_key_that_is_taken_away(
    processes: Processes, tmp_path: Path
) -> None:
    callers, image = tmp_path / "callers.toml", tmp_path / "image.png"
    image.write_bytes(save(photo()))
    audits = {name: tmp_path / f"{name}.log" for name in ("registry", "proxy", "worker")}
    keys = {}
    for name, options in (
        ("web", ["--tenant", "shop"]),
        ("ops", ["--role", "operate"]),
        ("looker", ["--role", "view"]),
    ):
        added = run("caller", "add", name, *options, "--callers", callers)
        assert added.returncode == 0, added.stderr
        keys[name] = added.stdout.strip()
        assert keys[name].startswith("fpk_")
        assert keys[name] not in added.stderr + callers.read_text()
    again = run("caller", "add", "web", "--callers", callers)
    assert again.returncode != 0
    assert "has a caller 'web' already" in " ".join(again.stderr.split())
    listed = run("caller", "list", "--callers", callers, "--json")
    assert [each["name"] for each in json.loads(listed.stdout)] == ["web", "ops", "looker"]

    # The registry, a proxy and a worker, each with its audit log.
    registry = f"http://127.0.0.1:{start_registry(processes, audits['registry'])}"
    proxy = processes.proxy(registry, "--callers", callers, "--audit-log", audits["proxy"])
    write_version(tmp_path / "models" / "flowers", 1)
    write_version(tmp_path / "models" / "flowers", 2)
    processes.start(
        "worker", "--registry", registry, "--models", tmp_path / "models", "--threads", 1,
        "--callers", callers, "--audit-log", audits["worker"],
    )  # fmt: skip
    until_blocking(lambda: status(f"{proxy}/v1/resolve/flowers", keys["web"]) == 200)

    # A client by the command line: a file, the environment, and without a key.
    token = tmp_path / "token"
    token.write_text(keys["web"])
    shown = run("classify", image, "--model", "flowers", "--proxy", proxy, "--token-file", token)
    assert shown.returncode == 0, shown.stderr
    assert "v2" in shown.stdout
    shown = run("status", "--proxy", proxy, "--json", FINGERPOST_API_KEY=keys["ops"])
    assert shown.returncode == 0, shown.stderr
    (service,) = json.loads(shown.stdout)
    worker = "http://" + service["workers"][0]["address"]
    refused = run("resolve", "flowers", "--proxy", proxy)
    assert refused.returncode != 0
    assert "say who you are" in refused.stderr

    # Orders by role.
    rollback = f"{worker}/v1/admin/models/flowers/rollback"
    assert status(f"{worker}/v1/admin/models", keys["looker"]) == 200
    assert status(rollback, keys["looker"], "POST") == 403
    assert status(rollback, keys["ops"], "POST") == 200
    until_blocking(lambda: len(lines(audits["worker"])) == 2)
    assert [(each["who"], each["result"]) for each in lines(audits["worker"])] == [
        ("looker", "refused"),
        ("ops", "done"),
    ]
    assert ("register", "done") in {
        (each["action"], each["result"]) for each in lines(audits["registry"])
    }
    assert any("no_credential" in each["detail"] for each in lines(audits["proxy"]))

    # A broken file is said by `status`; a key that is taken away works no more, without a restart.
    good = callers.read_text()
    callers.write_text(good + '\n[[callers]]\nname = "x"\ntenant = "nobody"\n')

    def told() -> bool:
        return "there is no tenant 'nobody'" in " ".join(
            run("status", "--proxy", proxy, FINGERPOST_API_KEY=keys["ops"]).stdout.split()
        )

    until_blocking(told)
    callers.write_text(good.replace('name = "web"', 'name = "web"\ndisabled = true'))
    until_blocking(lambda: status(f"{proxy}/", keys["web"]) == 403)
    for file in (*audits.values(), callers):
        assert not any(key in file.read_text() for key in keys.values())
        assert file.stat().st_mode & 0o077 == 0


def start_registry(processes: Processes, audit: Path) -> int:
    port = free_port()
    processes.start("registry", "--port", port, "--audit-log", audit)
    until_blocking(lambda: get_json(f"http://127.0.0.1:{port}/v1/status/leader"))
    return port


def test_a_start_with_a_broken_file_names_the_line(processes: Processes, tmp_path: Path) -> None:
    callers = tmp_path / "callers.toml"
    callers.write_text('[[callers]]\nname = "a"\nrole = "root"\n')
    started = processes.start("proxy", "--callers", callers, "--port", 0)
    assert started.wait() != 0
    text = " ".join(started.output().split())
    assert "Invalid enum value 'root'" in text
    assert "line 1" in text


def test_a_proxy_that_is_restarted_goes_on_with_its_audit_log(
    processes: Processes, tmp_path: Path
) -> None:
    callers, audit = tmp_path / "callers.toml", tmp_path / "audit.log"
    key = run("caller", "add", "web", "--callers", callers).stdout.strip()
    registry, port = processes.registry(), free_port()
    url = f"http://127.0.0.1:{port}"
    process = processes.start(
        "proxy", "--port", port, "--registry", registry, "--callers", callers, "--audit-log", audit
    )
    until_blocking(lambda: "listening" in process.output())
    assert status(f"{url}/v1/services") == 401
    until_blocking(lambda: len(lines(audit)) == 1)
    audit.rename(tmp_path / "audit.old")  # as logrotate does, then SIGHUP
    process.signal(signal.SIGHUP)
    until_blocking(lambda: "has taken over" in process.output())
    process.wait()
    assert status(f"{url}/v1/services", key) == 200
    assert status(f"{url}/v1/services") == 401
    until_blocking(lambda: len(lines(audit)) == 1)
    pid = int(process.output().rpartition("process ")[2].split()[0])
    os.kill(pid, signal.SIGTERM)
