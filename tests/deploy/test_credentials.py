"""Files that systemd passes to a service, as the values of options."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import typer

from fingerpost.deploy import cli
from fingerpost.deploy.credentials import CREDENTIALS, use_credentials
from fingerpost.errors import ConfigurationError


def test_those_of_a_folder_and_those_of_one_name(tmp_path: Path) -> None:
    for name in ("fingerpost_registry-token", "tls-key", "other-program_secret"):
        (tmp_path / name).write_text("x")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    use_credentials(environ)
    assert environ == {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "FINGERPOST_REGISTRY_TOKEN_FILE": str(tmp_path / "fingerpost_registry-token"),
        "FINGERPOST_TLS_KEY": str(tmp_path / "tls-key"),
    }


def test_a_variable_that_is_set_goes_before(tmp_path: Path) -> None:
    (tmp_path / "tls-key").write_text("x")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "FINGERPOST_TLS_KEY": "/etc/mine.pem"}
    use_credentials(environ)
    assert environ["FINGERPOST_TLS_KEY"] == "/etc/mine.pem"


def test_a_name_that_means_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "fingerpost_tls_key").write_text("x")
    with pytest.raises(ConfigurationError, match=r"^tls_key is not a credential .*tls-key"):
        use_credentials({"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere cannot be read: No such file"):
        use_credentials({"CREDENTIALS_DIRECTORY": str(tmp_path / "nowhere")})


def test_without_systemd_nothing_is_set() -> None:
    environ: dict[str, str] = {}
    use_credentials(environ)
    assert not environ


@pytest.mark.slow
def test_each_variable_is_that_of_an_option() -> None:
    app = typer.Typer()
    for name in ("worker", "proxy"):
        importlib.import_module(f"fingerpost.deploy.commands.{name}").add_to(app)
    commands = vars(typer.main.get_command(app))["commands"].values()
    known = {each.envvar for command in commands for each in command.params}
    assert set(CREDENTIALS.values()) <= known
    assert cli.use_credentials is use_credentials
