"""A worker that loads signed versions only, while others are published."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

from fingerpost.security.key_files import save_public_keys, save_signing_key
from fingerpost.security.keys import SigningKey
from tests.support.digits import Digits
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.waiting import until_blocking


def run(*arguments: object) -> str:
    done = subprocess.run(
        [*FINGERPOST, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_only_signed_versions_are_served(
    processes: Processes, digits: Digits, tmp_path: Path
) -> None:
    key, keys = tmp_path / "key.json", tmp_path / "keys.json"
    signing = SigningKey.generate()
    save_signing_key(signing, key)
    save_public_keys(signing.public, keys)
    model = tmp_path / "models" / "digits"
    first, second = model / "1", model / "2"
    shutil.copytree(digits.model, first)
    signed = json.loads(run("model", "sign", first, "--key", key, "--json"))
    registry = processes.registry()
    proxy = processes.proxy(registry)
    processes.worker(registry, model, "--require-signature", keys, "--poll", 0.2)
    (worker,) = processes.workers(proxy, 1)
    assert worker["meta"]["digest"] == signed["digest"]
    url = f"http://{worker['address']}"

    def state(number: int) -> dict[str, str] | None:
        for each in get_json(f"{url}/v1/models/digits")["model_version_status"]:
            if each["version"] == str(number):
                return {**each, "error": each["status"]["error_message"]}
        return None

    def classify(query: str = "") -> dict[str, object]:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{url}/v1/classify/digits{query}", digits.images[0].read_bytes()
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return dict(json.load(answer))

    # A version that is not signed: the one before goes on, and the reason is named.
    shutil.copytree(digits.model, tmp_path / "new")
    (tmp_path / "new").rename(second)
    refused = until_blocking(lambda: (state(2) or {}).get("error"))
    assert refused.startswith("untrusted_model: digits@2 is not signed")
    assert classify()["version"] == "1"
    assert "digest" not in classify()
    assert classify("?digest=1")["digest"] == signed["digest"]
    # One that is signed, and changed afterwards.
    newer = json.loads(run("model", "sign", second, "--key", key, "--json"))
    (second / "labels.txt").write_text("x\n" * 10)
    until_blocking(lambda: "has been changed" in (state(2) or {"error": ""})["error"])
    assert classify()["version"] == "1"
    # As it was signed.
    shutil.copy(digits.model / "labels.txt", second)
    until_blocking(lambda: (state(2) or {}).get("digest") == newer["digest"])
    assert until_blocking(lambda: classify("?digest=1")["version"] == "2")
    (told,) = until_blocking(
        lambda: [
            each
            for each in processes.workers_now(proxy)
            if each["meta"]["digest"] == newer["digest"]
        ]
    )
    assert newer["digest"][:19] in run("status", "--proxy", proxy)
    assert told["models"][0]["versions"] == ["2"]
