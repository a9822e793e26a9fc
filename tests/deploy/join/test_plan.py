"""What `fingerpost join` would write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import invoke

from fingerpost.deploy.join.plan import MARK, UNIT, JoinPlan, credentials_of
from fingerpost.errors import ConfigurationError
from fingerpost.registry import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

GOOD: dict[str, Any] = {
    "registry": "consul+https://127.0.0.1:8501",
    "models": Path("/srv/fingerpost/models"),
    "command": Path("/opt/venv/bin/fingerpost"),
    "options": ["--port", "12490", "--zone", "rack-7"],
    "credentials": {"registry-token": "secret\n"},
}


def test_files_and_their_content() -> None:
    files = {str(each.path): each for each in JoinPlan.make(**GOOD).files}
    token = files["/etc/fingerpost/credentials/worker/registry-token"]
    assert (token.content, token.mode, token.secret) == ("secret\n", 0o600, True)
    assert files["/etc/fingerpost/credentials/worker"].mode == 0o700
    settings = files["/etc/fingerpost/worker.env"].content
    assert settings == (
        f"{MARK}# Its credentials: registry-token\n"
        "FINGERPOST_MODELS=/srv/fingerpost/models\n"
        'FINGERPOST_WORKER_OPTIONS="--port 12490 --zone rack-7"\n'
    )
    unit = files[f"/etc/systemd/system/{UNIT}"].content
    assert unit is not None
    assert "ExecStart=/opt/venv/bin/fingerpost worker --models" in unit
    assert "/opt/fingerpost" not in unit
    assert list(files)[-1].endswith(UNIT), "what it needs is there before it"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"registry": "consul://h:8500\nExecStartPre=/bin/evil"}, "cannot stand in a unit"),
        ({"models": Path("/srv/my models")}, "without spaces"),
        ({"models": Path("/srv/%h")}, "cannot stand in a unit"),
        ({"models": Path("models")}, "is not an absolute path"),
        ({"models": Path("/home/ann/models")}, "is in /home, which services cannot see"),
        ({"command": Path("/root/venv/bin/fingerpost")}, "is in /root"),
        ({"models": Path("/run/user/0/models")}, "is in /run/user"),
        ({"options": ["--zone", "$(reboot)"]}, "the worker's option"),
        ({"options": ["--registry-token", "secret"]}, "which every user .* may read"),
        ({"options": ["--registry-token=secret"]}, "give --registry-token-file FILE before the --"),
        ({"options": ["--admin-token-file", "/root/token"]}, "'/root/token' names a file that"),
        ({"options": ["--admin-token-file=/tmp/token"]}, "into /etc/fingerpost/credentials/worker"),
    ],
)
def test_what_a_unit_cannot_have_is_refused(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text.replace("$", r"\$")):
        JoinPlan.make(**{**GOOD, **changed})


def test_a_password_in_the_registrys_url_is_for_root_alone() -> None:
    for url, mode in (("consul://ann:secret@c:8500", 0o600), ("consul://c:8500", 0o644)):
        files = {str(each.path): each for each in JoinPlan.make(**{**GOOD, "registry": url}).files}
        assert files["/etc/fingerpost/fingerpost.env"].mode == mode


def test_options_with_files_become_credentials(tmp_path: Path) -> None:
    for name in ("token", "key", "cert"):
        (tmp_path / name).write_text(name)
    registry = RegistryConfig(token_file=str(tmp_path / "token"))
    tls = TlsConfig(cert=str(tmp_path / "cert"), key=str(tmp_path / "key"))
    assert credentials_of(registry, tls) == {
        "registry-token": "token",
        "tls-cert": "cert",
        "tls-key": "key",
    }
    assert credentials_of(RegistryConfig(token=str(1)), None) == {"registry-token": "1"}
    with pytest.raises(ConfigurationError, match="nowhere cannot be read"):
        credentials_of(RegistryConfig(ca_file=str(tmp_path / "nowhere")), None)


def test_a_worker_option_that_does_not_exist_is_refused_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not where this checkout is, which services may not see.
    monkeypatch.setattr(sys, "executable", "/opt/fingerpost/bin/python")
    join = ("join", "consul://127.0.0.1:8500", "--models", "/srv/x")
    done = invoke(*join, "--", "--max-btch", "64")
    assert done.exit_code == 2
    assert "Try 'fingerpost worker --help'" in done.output
    assert "No such option: --max-btch" in done.output
