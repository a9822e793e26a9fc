"""What `fingerpost join` writes on a machine. Nothing is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.registry import RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = [
    "CONFIG",
    "CREDENTIALS",
    "LISTED",
    "MARK",
    "UNIT",
    "UNITS",
    "JoinPlan",
    "PlannedFile",
    "credentials_of",
]

UNIT: Final = "fingerpost-workers.service"
MARK: Final = "# Written by `fingerpost join`; `fingerpost join --undo` removes it.\n"
# Before the names of the credentials that were written: others stay.
LISTED: Final = "# Its credentials: "
CONFIG: Final = Path("/etc/fingerpost")
CREDENTIALS: Final = CONFIG / "credentials/worker"
UNITS: Final = Path("/etc/systemd/system")
_COMMAND: Final = "/opt/fingerpost/bin/fingerpost"
# What systemd neither splits, expands nor unquotes.
_PLAIN: Final = re.compile(r"[\w./:@,=+?&\[\]-]+", re.ASCII)
# Folders that the unit's sandbox hides (`ProtectHome`, `PrivateTmp`).
_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - named, not used


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """A file to write, or a folder.

    Attributes:
        path: where.
        content: what; None makes a folder.
        mode: the permission bits.
        secret: whether its content is not shown.
    """

    path: Path
    content: str | None
    mode: int = 0o644
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """The files of a node, in the order in which they are written.

    Attributes:
        files: see above.
    """

    files: tuple[PlannedFile, ...]

    @classmethod
    def make(
        cls,
        *,
        registry: str,
        models: Path,
        command: Path,
        options: Sequence[str],
        credentials: Mapping[str, str],
    ) -> JoinPlan:
        """The plan for a machine.

        Args:
            registry: the registry's URL.
            models: the folder of models.
            command: the program `fingerpost`, which the unit runs.
            options: further options of `fingerpost worker`.
            credentials: the content of each credential, by its name: see `credentials_of`.

        Raises:
            ConfigurationError: a value that a unit cannot have, or a folder that it cannot see.
        """
        for what, value in (
            ("the registry's URL", registry),
            ("--models", str(models)),
            ("the command", str(command)),
            *(("the worker's option", each) for each in options),
        ):
            if _PLAIN.fullmatch(value) is None:
                raise ConfigurationError(
                    f"{what} {value!r} cannot stand in a unit: use letters, digits and ./:@,=+?&-, "
                    "without spaces"
                )
        for what, path in (("--models", models), ("the command", command)):
            if not path.is_absolute():
                raise ConfigurationError(f"{what} {path} is not an absolute path")
            if hidden := next((each for each in _HIDDEN if path.is_relative_to(each)), None):
                raise ConfigurationError(
                    f"{what} {path} is in {hidden}, which services cannot see: use a folder such "
                    "as /srv/fingerpost/models for models, and /opt/fingerpost for the environment"
                )
        for option in options:
            _check_option(option)
        unit = (_templates() / UNIT).read_text("utf-8").replace(_COMMAND, str(command))
        settings = f"{LISTED}{' '.join(sorted(credentials))}\nFINGERPOST_MODELS={models}\n"
        if options:
            settings += f'FINGERPOST_WORKER_OPTIONS="{" ".join(options)}"\n'
        return cls(
            files=(
                PlannedFile(path=CONFIG, content=None, mode=0o755),
                PlannedFile(path=CREDENTIALS.parent, content=None, mode=0o700),
                PlannedFile(path=CREDENTIALS, content=None, mode=0o700),
                *(
                    PlannedFile(path=CREDENTIALS / name, content=text, mode=0o600, secret=True)
                    for name, text in sorted(credentials.items())
                ),
                # Only root reads a password in the URL: so does systemd, for the service.
                PlannedFile(
                    path=CONFIG / "fingerpost.env",
                    content=f"{MARK}FINGERPOST_REGISTRY={registry}\n",
                    mode=0o600 if "@" in registry else 0o644,
                ),
                PlannedFile(path=CONFIG / "worker.env", content=MARK + settings),
                PlannedFile(path=UNITS / UNIT, content=MARK + unit),
            )
        )


def _check_option(option: str) -> None:
    """Refuse a secret that everybody could read, and a file that the service cannot see."""
    name, _, value = option.partition("=")
    if name == "--registry-token":
        raise ConfigurationError(
            f"the worker's option {name} would be in {CONFIG}/worker.env and in the list of "
            "processes, which every user of this machine may read: give --registry-token-file FILE "
            "before the --, which becomes a credential"
        )
    path = Path(value or name)
    if path.is_absolute() and any(path.is_relative_to(each) for each in _HIDDEN):
        raise ConfigurationError(
            f"the worker's option {option!r} names a file that services cannot see: put a secret "
            f"into {CREDENTIALS}, under the name of its credential, and other files into {CONFIG}"
        )


def credentials_of(registry_config: RegistryConfig, tls: TlsConfig | None) -> dict[str, str]:
    """The content of each file that the options name, by the name of its credential.

    Raises:
        ConfigurationError: a file cannot be read, or an option has no file.
    """
    files = {
        "registry-token": registry_config.token_file,
        "registry-ca": registry_config.ca_file,
        "registry-cert": registry_config.cert_file,
        "registry-key": registry_config.key_file,
        "registration-keys": registry_config.registration_keys,
    }
    if tls is not None:
        files |= {"tls-cert": tls.cert, "tls-key": tls.key, "tls-client-ca": tls.client_ca}
    found = {}
    for name, file in files.items():
        if file is None:
            continue
        try:
            found[name] = Path(file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            option = f"--{name}-file" if name.startswith("registry") else f"--{name}"
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(f"{option} {file} cannot be read: {why}") from error
    if registry_config.token is not None:
        found["registry-token"] = registry_config.token
    return found


def _templates() -> Path:
    """The folder with the units: of the wheel, or `deploy/systemd` of a checkout."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "systemd", here.parents[3] / "systemd"):
        if (folder / UNIT).is_file():
            return folder
    raise ConfigurationError("the unit files are missing: install fingerpost anew")
