"""The environment variables that Fingerpost reads, and those that only look so.

A unit's `.env` file, a compose file or a pod may misspell one, which would be a setting that is
silently not there. It is a warning and not an error: a file may serve two releases, of which one
does not know the variable yet.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KNOWN", "warn_of_unknown"]

_PREFIX: Final = "FINGERPOST_"

# Those of the commands' options; a test compares them with the commands.
KNOWN: Final = frozenset(
    {
        "FINGERPOST_ACCESS_LOG",
        "FINGERPOST_ADMIN_TOKEN_FILE",
        "FINGERPOST_API_KEY",
        "FINGERPOST_AUDIT_LOG",
        "FINGERPOST_CALLERS",
        "FINGERPOST_LEASE_KEY",
        "FINGERPOST_LEASE_KEYS",
        "FINGERPOST_LOG_FORMAT",
        "FINGERPOST_LOG_LEVEL",
        "FINGERPOST_REGISTRATION_KEY",
        "FINGERPOST_REGISTRATION_KEYS",
        "FINGERPOST_REGISTRY",
        "FINGERPOST_REGISTRY_CA_FILE",
        "FINGERPOST_REGISTRY_CERT_FILE",
        "FINGERPOST_REGISTRY_KEY_FILE",
        "FINGERPOST_REGISTRY_TOKEN",
        "FINGERPOST_REGISTRY_TOKEN_FILE",
        "FINGERPOST_TLS_CA",
        "FINGERPOST_TLS_CERT",
        "FINGERPOST_TLS_CLIENT_CA",
        "FINGERPOST_TLS_KEY",
        "FINGERPOST_TOKEN_FILE",
        "FINGERPOST_TRUST_DOMAIN",
        "FINGERPOST_ZMQ_CLIENTS",
        "FINGERPOST_ZMQ_KEY",
    }
)
# Of units, images, supervised processes, and tests.
_OTHERS: Final = re.compile(
    r"FINGERPOST_((WORKER|PROXY|REGISTER)_OPTIONS|MODELS?|ROLE|IMAGE|COMMIT|REPOSITORY|ADMIN_TOKEN|"
    r"(LISTEN|READY)_FD|TESTS?_\w+|MUTATIONS|FAULTS_RUN)"
)
# Kubernetes gives each container the addresses of all Services, such as of `fingerpost-proxy`.
_OF_SERVICES: Final = re.compile(
    r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

_log = logging.getLogger(__name__)


def warn_of_unknown(names: Iterable[str]) -> None:
    """Log a warning for each environment variable that looks like one of Fingerpost and is not.

    Args:
        names: of all variables.
    """
    for name in sorted(names):
        if not name.startswith(_PREFIX) or name in KNOWN:
            continue
        if _OTHERS.fullmatch(name) or _OF_SERVICES.fullmatch(name):
            continue
        import difflib

        known = [each.removeprefix(_PREFIX) for each in KNOWN]
        near = difflib.get_close_matches(name.removeprefix(_PREFIX), known, n=1)
        hint = f"did you mean {_PREFIX}{near[0]}?" if near else "remove it, or correct its name"
        _log.warning("the environment variable %s means nothing here: %s", name, hint)
