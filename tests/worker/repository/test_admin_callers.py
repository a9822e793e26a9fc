"""Roles at the admin API: who may look, who may operate, and what is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fingerpost.registry.access import CallersConfig
from fingerpost.security.callers.api_keys import hash_key, make_key
from tests.support.repository import TOKEN, write_version
from tests.support.waiting import until

KEYS = {role: make_key() for role in ("", "view", "operate", "admin", "disabled")}
UNKNOWN = make_key()

POLICY = "".join(
    f'[[callers]]\nname = "c-{role or "none"}"\nkeys = ["{hash_key(key)}"]\n'
    f'role = "{"" if role == "disabled" else role}"\ndisabled = {str(role == "disabled").lower()}\n'
    for role, key in KEYS.items()
)

ORDERS = [
    ("GET", "/v1/admin/models", "view"),
    ("POST", "/v1/admin/models/flowers/versions/1/load", "operate"),
    ("POST", "/v1/admin/models/flowers/rollback", "operate"),
    ("PUT", "/v1/admin/models/flowers/aliases/stable", "operate"),
    ("PUT", "/v1/admin/models/flowers/labels/stable", "operate"),
    ("POST", "/v1/admin/models/flowers/versions/2/unload", "operate"),
    ("POST", "/v2/repository/models/flowers/load", "operate"),
    ("POST", "/v2/repository/models/flowers/unload", "admin"),
]
RANK = ["", "view", "operate", "admin"]


@pytest.fixture
def audit(tmp_path):
    return tmp_path / "audit.log"


@pytest.fixture
async def worker(tmp_path, serve, audit):
    models = tmp_path / "models"
    for version in (1, 2):
        write_version(models / "flowers", version)
    policy = tmp_path / "callers.toml"
    policy.write_text(POLICY)
    config = CallersConfig(policy=str(policy), audit_log=str(audit), policy_poll_s=0.05)
    return await serve(models, callers=config)


@pytest.fixture
def ask_as(http):
    async def ask_as(worker, method, path, key, **more):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{worker.instances[0].url}{path}"
        async with http.request(method, url, headers=headers, **more) as response:
            return response.status, await response.text(), response.headers

    return ask_as


def lines(audit: Path) -> list[dict[str, str]]:
    text = audit.read_text() if audit.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("role", RANK)
@pytest.mark.parametrize(("method", "path", "needed"), ORDERS)
async def test_each_order_needs_its_role(worker, ask_as, method, path, needed, role):
    status, text, _ = await ask_as(worker, method, path, KEYS[role], json={"version": "1"})
    if RANK.index(role) >= RANK.index(needed):
        assert status not in (401, 403), text
    else:
        assert status == 403
        assert f"this needs the role {needed}" in text


@pytest.mark.parametrize(
    "key",
    ["", UNKNOWN, "eyJhbGciOiJub25lIn0.e30.", "wrong"],
    ids=["none", "unknown", "no algorithm", "wrong"],
)
async def test_nobody_known_is_401(worker, ask_as, key):
    status, text, headers = await ask_as(worker, "GET", "/v1/admin/models", key)
    assert (status, json.loads(text)["error"]["code"]) == (401, "unauthorized")
    assert headers["WWW-Authenticate"] == "Bearer"


async def test_a_disabled_caller_is_403(worker, ask_as):
    status, text, _ = await ask_as(worker, "GET", "/v1/admin/models", KEYS["disabled"])
    assert (status, json.loads(text)["error"]["code"]) == (403, "forbidden")


async def test_the_admin_token_has_the_role_admin(worker, ask_as):
    for method, path, _ in ORDERS:
        status, text, _ = await ask_as(worker, method, path, TOKEN, json={"version": "1"})
        assert status not in (401, 403), text


async def test_callers_alone_switch_the_api_on(tmp_path, serve, ask_as):
    write_version(tmp_path / "models" / "flowers", 1)
    policy = tmp_path / "callers.toml"
    policy.write_text(POLICY)
    config = CallersConfig(policy=str(policy))
    worker = await serve(tmp_path / "models", admin_token=None, callers=config)
    assert (await ask_as(worker, "GET", "/v1/admin/models", KEYS["view"]))[0] == 200
    assert (await ask_as(worker, "GET", "/v1/admin/models", ""))[0] == 401


async def test_every_order_and_refusal_is_written_down(worker, ask_as, audit):
    base = "/v1/admin/models/flowers"
    assert (await ask_as(worker, "GET", "/v1/admin/models", KEYS["view"]))[0] == 200
    assert (await ask_as(worker, "POST", f"{base}/rollback", KEYS["operate"]))[0] == 200
    assert (await ask_as(worker, "POST", f"{base}/versions/9/load", TOKEN))[0] == 404
    assert (await ask_as(worker, "POST", f"{base}/rollback", KEYS["view"]))[0] == 403
    assert (await ask_as(worker, "POST", f"{base}/rollback", UNKNOWN))[0] == 401
    await until(lambda: len(lines(audit)) == 4, "four lines")
    done, failed, forbidden, unknown = lines(audit)
    assert {name: done[name] for name in ("who", "role", "from", "action", "target", "result")} == {
        "who": "c-operate",
        "role": "operate",
        "from": "127.0.0.1",
        "action": "rollback",
        "target": "flowers",
        "result": "done",
    }
    assert (failed["who"], failed["action"], failed["target"]) == (
        "admin token",
        "load",
        "flowers@9",
    )
    assert failed["result"] == "failed"
    assert "no version 9" in failed["detail"]
    assert (forbidden["who"], forbidden["result"]) == ("c-view", "refused")
    assert (unknown["who"], unknown["result"]) == ("", "refused")
    text = audit.read_text()
    assert not any(key in text for key in (TOKEN, UNKNOWN, *KEYS.values()))
    status, metrics, _ = await ask_as(worker, "GET", "/metrics", "")
    assert status == 200
    for line in (
        'fingerpost_audit_events_total{result="done"} 1.0',
        'fingerpost_audit_events_total{result="failed"} 1.0',
        'fingerpost_audit_events_total{result="refused"} 2.0',
        'fingerpost_refusals_total{reason="role"} 1.0',
        "fingerpost_worker_admin_denied_requests_total 2.0",
    ):
        assert line in metrics


async def test_names_in_a_path_cannot_forge_a_line(worker, http, audit):
    from yarl import URL

    path = "/v1/admin/models/x%0A%22who%22:%22root%22%1B[2J/rollback"
    async with http.post(URL(f"{worker.instances[0].url}{path}", encoded=True)) as answer:
        assert answer.status == 401
    await until(lambda: lines(audit), "a line")
    (line,) = lines(audit)
    assert line["target"] == r'x\n"who":"root"\x1b[2J'
    assert line["who"] == ""


async def test_classifying_needs_no_caller(worker, ask):
    """Who may send images is the leases' to say."""
    assert await ask(worker, "flowers") == ("2", "v2")
