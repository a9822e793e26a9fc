"""`fingerpost demo --secure`, with real Consul: the honest caller is served, attackers are not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import typer

from fingerpost.deploy.commands import demo as command
from tests.support.processes import FINGERPOST
from tests.system.demo import Demo

_FROM_OUTSIDE = {
    "sends an image without a certificate": "no connection: it asks for a client certificate",
    "shows a certificate of its own authority": "no connection: it does not trust our certificate",
    "speaks plain HTTP": "421 misdirected",
    "sends an image without a lease": "401 lease_required",
    "signs a lease itself": "401 lease_invalid",
    "sends a lease with `alg: none`": "401 lease_invalid",
    "sends the camera's lease, stolen": "403 lease_wrong_certificate",
    "asks the proxy without an API key": "401 unauthorized",
    "guesses an API key": "401 unauthorized",
    "asks for digits": "403 forbidden",
    "orders a worker to roll back": "403 forbidden",
    "registers a worker": "403 Permission denied",
    "registers a copy of a worker's entry, for itself": "registered, and left out: its signature",
}


def test_the_honest_are_served_and_every_attacker_is_refused(
    demo: Demo, reader: Path, consul_binary: str, tmp_path: Path
) -> None:
    run = subprocess.run(
        [
            *(*FINGERPOST, "demo", "--secure", "--trained", "--json", "--consul", consul_binary),
            *("--out", str(reader), "--data", str(demo.images[0].parents[2])),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert run.returncode == 0, (run.stdout, run.stderr[-3000:])
    result = json.loads(run.stdout)
    assert result["registry"].startswith("Consul")
    assert result["images"] == len(demo.images)
    assert result["right"] >= 0.95 * result["images"]
    assert (result["lost"], result["to_impostor"]) == (0, 0)
    got = {each["tried"]: each for each in result["attempts"]}
    assert got.keys() == _FROM_OUTSIDE.keys()
    for tried, answer in _FROM_OUTSIDE.items():
        assert got[tried]["refused"]
        assert got[tried]["answer"].startswith(answer), got[tried]
    assert result["audited"] >= 4
    for title in ("1  The model", "2  Make an authority", "3  Start", "4  Attack", "5  Send"):
        assert title in run.stderr
    assert "Traceback" not in run.stderr
    # Keys and tokens are gone with the cluster.
    assert not list(tmp_path.iterdir())


def test_consul_is_for_the_secure_demo_alone() -> None:
    with pytest.raises(typer.BadParameter, match="--consul is for --secure"):
        command.demo(consul=Path("consul"))
