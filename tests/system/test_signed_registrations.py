"""Workers that sign their registration, and who believes what, as real processes."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest

from fingerpost.security.key_files import save_public_keys, save_signing_key
from fingerpost.security.keys import SigningKey
from tests.support.digits import Digits
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.waiting import until_blocking


def run(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [*FINGERPOST, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done
    return done.stdout + done.stderr


def register(registry: str, entry: dict[str, object]) -> None:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{registry}/v1/agent/service/register", json.dumps(entry).encode(), method="PUT"
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
        assert answer.status == 200


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    key = SigningKey.generate()
    save_signing_key(key, tmp_path / "key.json")
    save_public_keys(key.public, tmp_path / "keys.json")
    return tmp_path


def test_an_impostor_is_left_out_and_named(
    processes: Processes, digits: Digits, keys: Path
) -> None:
    registry = processes.registry()
    guarded = processes.proxy(registry, "--registration-keys", keys / "keys.json")
    open_to_all = processes.proxy(registry)
    processes.worker(registry, digits.model, "--registration-key", keys / "key.json")
    (worker,) = processes.workers(guarded, 1)
    known = get_json(f"{registry}/v1/agent/service/{worker['id']}")
    entry = {
        "Name": "digits",
        "Address": "127.0.0.1",
        "Port": 9,
        "Tags": known["Tags"],
        "Meta": known["Meta"],  # with the honest worker's signature
        "Weights": {"Passing": 65535, "Warning": 1},
    }
    register(registry, {**entry, "ID": "impostor"})
    processes.workers(open_to_all, 2)

    def shown() -> str | None:
        text = run("status", "--proxy", guarded)
        return text if "impostor" in text else None

    table = until_blocking(shown)
    assert "the entry impostor is left out: its signature does not match its content" in " ".join(
        table.split()
    )
    assert [each["id"] for each in processes.workers(guarded, 1)] == [worker["id"]]
    (service,) = json.loads(run("status", "--proxy", guarded, "--json"))
    assert list(service["rejected"]) == ["impostor"]
    # A client with the keys asks a proxy without them, and the registry.
    for source in (("--proxy", open_to_all), ("--registry", registry)):
        resolved = run("resolve", "digits", *source, "--registration-keys", keys / "keys.json")
        assert worker["address"] in resolved
        assert "127.0.0.1:9" not in resolved
    with urllib.request.urlopen(f"{guarded}/metrics", timeout=5) as answer:  # noqa: S310 - loopback
        metrics = answer.read().decode()
    assert 'rejected_entries_total{reason="wrong_signature"} 1.0' in metrics


def test_a_key_that_others_can_read_ends_the_worker_with_the_remedy(
    digits: Digits, keys: Path
) -> None:
    (keys / "key.json").chmod(0o644)
    said = run("worker", "--model", digits.model, "--registration-key", keys / "key.json", code=1)
    assert "chmod 600" in said


def test_keys_that_cannot_be_read_end_the_proxy(keys: Path) -> None:
    (keys / "keys.json").write_text("[]")
    said = run("proxy", "--port", 0, "--registration-keys", keys / "keys.json", code=1)
    assert "not a set of public keys" in said
    said = run("proxy", "--registry", "static://10.0.0.7:1", "--registration-keys", keys, code=1)
    assert "registration_keys has an effect only with Consul" in said
