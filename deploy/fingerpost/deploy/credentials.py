"""Files that systemd passes to a service (`LoadCredential=`), as the values of options.

systemd reads them as root, and gives the service a copy of its own that no other process sees; the
service's user needs no right to the files themselves. Each has a name here, and is what the
environment variable of its option would name. The variable and the option go before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

__all__ = ["CREDENTIALS", "use_credentials"]

_FOLDER: Final = "CREDENTIALS_DIRECTORY"
# `LoadCredential=fingerpost:FOLDER` names the files in FOLDER so.
_PREFIX: Final = "fingerpost_"

CREDENTIALS: Final[Mapping[str, str]] = {
    "admin-token": "FINGERPOST_ADMIN_TOKEN_FILE",
    "callers.toml": "FINGERPOST_CALLERS",
    "lease-key": "FINGERPOST_LEASE_KEY",
    "lease-keys": "FINGERPOST_LEASE_KEYS",
    "registration-key": "FINGERPOST_REGISTRATION_KEY",
    "registration-keys": "FINGERPOST_REGISTRATION_KEYS",
    "registry-ca": "FINGERPOST_REGISTRY_CA_FILE",
    "registry-cert": "FINGERPOST_REGISTRY_CERT_FILE",
    "registry-key": "FINGERPOST_REGISTRY_KEY_FILE",
    "registry-token": "FINGERPOST_REGISTRY_TOKEN_FILE",
    "tls-ca": "FINGERPOST_TLS_CA",
    "tls-cert": "FINGERPOST_TLS_CERT",
    "tls-client-ca": "FINGERPOST_TLS_CLIENT_CA",
    "tls-key": "FINGERPOST_TLS_KEY",
    "zmq-clients": "FINGERPOST_ZMQ_CLIENTS",
    "zmq-key": "FINGERPOST_ZMQ_KEY",
}
"""The environment variable of each credential, by its name."""


def use_credentials(environ: MutableMapping[str, str]) -> None:
    """Set the variables of the credentials that this service got, where they are not set.

    Raises:
        ConfigurationError: a file in the folder of Fingerpost's credentials has no meaning.
    """
    folder = environ.get(_FOLDER)
    if not folder:
        return
    try:
        files = sorted(Path(folder).iterdir())
    except OSError as error:
        raise ConfigurationError(
            f"{_FOLDER}={folder} cannot be read: {error.strerror}; systemd sets it"
        ) from error
    for file in files:
        name = file.name.removeprefix(_PREFIX)
        variable = CREDENTIALS.get(name)
        if variable is not None:
            environ.setdefault(variable, str(file))
        elif name != file.name:  # it is meant for Fingerpost
            raise ConfigurationError(
                f"{name} is not a credential that Fingerpost knows: name the file one of "
                f"{', '.join(CREDENTIALS)}"
            )
