"""A whole cluster of `fingerpost` processes with TLS: registry, proxy, worker, and the commands."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.certificates import TRUST_DOMAIN, Authority, spiffe_worker
from tests.support.digits import Digits
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes
from tests.support.waiting import until_blocking


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FINGERPOST, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def test_all_commands_by_mutual_tls(
    processes: Processes, digits: Digits, ca: Authority, tmp_path: Path
) -> None:
    def shown(name: str, *uris: str) -> list[object]:
        pair = ca.issue(name, uris=uris)
        return ["--tls-cert", pair.cert, "--tls-key", pair.key]

    trust = ["--tls-ca", ca.file, "--trust-domain", TRUST_DOMAIN]
    mutual = ["--tls-client-ca", ca.file]
    access = ["--registry-ca-file", ca.file]
    ports = [free_port() for _ in range(3)]
    registry, proxy, _ = (f"https://127.0.0.1:{port}" for port in ports)
    processes.start("registry", "--port", ports[0], *shown("registry"), *trust)
    processes.start(
        "worker", "--model", digits.model, "--name", "digits", "--port", ports[2], "--lease", 0,
        "--registry", registry, *access, *shown("worker", spiffe_worker("digits")), *mutual,
        "--check", "https",
    )  # fmt: skip
    processes.start(
        "proxy", "--port", ports[1], "--registry", registry, *access, *shown("proxy"), *mutual,
        *trust, "--relay",
    )  # fmt: skip
    client = ["--proxy", proxy, *trust, *shown("client")]

    def ready() -> bool:
        done = run("classify", digits.images[0], "--model", "digits", "--json", *client)
        return done.returncode == 0 and f"127.0.0.1:{ports[2]}" in done.stdout

    until_blocking(ready, within_s=60)
    services = json.loads(run("status", "--json", *client).stdout)
    assert services[0]["workers"][0]["load"]["state"] == 1
    assert run("resolve", "digits", *client).stdout == f"127.0.0.1:{ports[2]}\n"
    relayed = run("classify", digits.images[0], "--model", "digits", "--relay", *client)
    assert relayed.returncode == 0, relayed
    results = ["--out", tmp_path / "results.jsonl"]
    streamed = run("stream", digits.images[0].parent, "--model", "digits", *results, *client)
    assert streamed.returncode == 0, streamed
    without = run("resolve", "digits", "--proxy", proxy, *trust)
    assert without.returncode == 1
    assert "client certificate" in without.stderr
    named = ["--registry", registry, *access, *client[2:]]
    by_registry = run("classify", digits.images[0], "--model", "digits", *named)
    assert by_registry.returncode == 0, by_registry


def test_what_is_refused_at_the_start(digits: Digits, ca: Authority, tmp_path: Path) -> None:
    one, two = ca.worker("digits"), ca.worker("flowers")
    old = ca.issue("old", valid_from_s=-100, valid_to_s=-10)
    for options, says in [
        (["--tls-cert", one.cert], "has no key: name its private key (--tls-key)"),
        (["--tls-cert", one.cert, "--tls-key", two.key], "is not that of the certificate"),
        (["--tls-cert", old.cert, "--tls-key", old.key], "has expired"),
        (["--tls-cert", tmp_path / "no", "--tls-key", one.key], "cannot be read"),
        (["--tls-client-ca", ca.file], "has an effect only with TLS"),
    ]:
        for command in (["worker", "--model", digits.model], ["proxy", "--port", 0]):
            done = run(*command, *options)
            assert done.returncode == 1, done
            assert says in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "0.0.0.0"], True),  # noqa: S104 - what is told
        (["--host", "0.0.0.0", "--insecure"], False),  # noqa: S104
        (["--host", "127.0.0.1"], False),
    ],
)
def test_listening_without_tls_is_told_once(
    processes: Processes, options: list[str], told: bool
) -> None:
    proxy = processes.start("proxy", "--port", free_port(), *options)
    until_blocking(lambda: "listening at" in proxy.output(), within_s=30)
    assert proxy.output().count("without TLS") == told
    assert not told or "--tls-cert and --tls-key, or --insecure" in proxy.output()
