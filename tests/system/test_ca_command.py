"""A cluster with the certificates of `fingerpost ca`, as real processes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from fingerpost.security.ca import make_authority
from tests.support.digits import Digits
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes
from tests.support.waiting import until_blocking

DOMAIN = "vision.example.org"


def run(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [*FINGERPOST, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert code in (-1, done.returncode), done
    return done.stdout + done.stderr


def test_a_cluster_with_mutual_tls_and_a_renewed_authority(
    processes: Processes, digits: Digits, tmp_path: Path
) -> None:
    ca = tmp_path / "ca"
    run("ca", "init", "--dir", ca, "--trust-domain", DOMAIN)
    for arguments in (("worker", "digits"), ("proxy",), ("client", "camera-7")):
        said = run("ca", "issue", *arguments, "--dir", ca)
        assert "Next: start it with --tls-cert" in said
    trust = ("--tls-ca", ca / "ca.pem", "--trust-domain", DOMAIN)

    def pair(name: str) -> tuple[object, ...]:
        return ("--tls-cert", ca / f"{name}.pem", "--tls-key", ca / f"{name}-key.pem")

    registry = processes.registry()
    mutual = ("--tls-client-ca", ca / "ca.pem")
    processes.worker(registry, digits.model, *pair("worker-digits"), *mutual)
    port = free_port()
    processes.start(
        *("proxy", "--port", port, "--registry", registry), *pair("proxy"), *mutual, *trust
    )
    client = ("--proxy", f"https://127.0.0.1:{port}", *pair("client-camera-7"), *trust)
    image = digits.images[0]

    def classified() -> bool:
        said = run("classify", image, "--model", "digits", "--json", *client, code=-1)
        try:
            return json.loads(said.splitlines()[0])["predictions"][0][0] == "0"
        except (ValueError, LookupError, TypeError):
            return False

    assert until_blocking(classified, within_s=60)
    # The authority's key is changed; what the old one signed is used until it is renewed.
    run("ca", "renew", "--new-key", "--dir", ca)
    assert until_blocking(classified, within_s=60)
    for name in ("worker-digits", "proxy", "client-camera-7"):
        run("ca", "renew", ca / f"{name}.pem", "--new-key", "--dir", ca)
    run("ca", "renew", "--retire-old", "--dir", ca)
    assert until_blocking(classified, within_s=60)
    # A client of another authority of the same domain.
    stranger = make_authority(tmp_path / "other", DOMAIN).issue("client", "camera-7")
    own = ("--tls-cert", stranger.certificate, "--tls-key", stranger.key)
    said = run("classify", image, "--model", "digits", *client[:2], *own, *trust, code=1)
    assert "certificate" in said.lower()
