"""SPIFFE ids of workers: `spiffe://DOMAIN/fingerpost/worker/SERVICE`. Pure.

The id is a URI in the certificate's subject alternative names (SPIFFE's X509-SVID, section 2).
SPIFFE allows one id a certificate; a worker that serves several models needs one for each of its
services, so several are accepted, and any other authority than a SPIFFE server can issue them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["spiffe_ids", "worker_id", "worker_problem", "wrong_identity"]

_SCHEME: Final = "spiffe://"
_ID: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*", re.ASCII)
_MAX_ID_BYTES: Final = 2048
_WORKER: Final = "/fingerpost/worker/"
_OURS: Final = re.compile(r"spiffe://([^/]+)/fingerpost/")


def worker_id(trust_domain: str, service: str) -> str:
    """The SPIFFE id of the workers of a service."""
    return f"{_SCHEME}{trust_domain}{_WORKER}{service}"


def spiffe_ids(cert: Mapping[str, Any]) -> tuple[str, ...]:
    """The valid SPIFFE ids of a certificate, as `SSLSocket.getpeercert` returns it.

    A URI that is not a valid id is left out: `spiffe://a/../b`, one with a query, or too long.
    """
    return tuple(
        value for kind, value in cert.get("subjectAltName", ()) if kind == "URI" and _is_id(value)
    )


def worker_problem(ids: Iterable[str], trust_domain: str, service: str) -> str:
    """Why a certificate with these ids is not one of a worker of `service`; empty if it is.

    `*` is any service.
    """
    wanted = worker_id(trust_domain, service)
    shown = tuple(ids)
    if wanted in shown:
        return ""
    if service == "*" and any(each.startswith(wanted[:-1]) for each in shown):
        return ""
    named = f"it names {', '.join(shown[:5])}" if shown else "it has no SPIFFE id"
    whose = "any service" if service == "*" else repr(service)
    uri = worker_id(trust_domain, "SERVICE") if service == "*" else wanted
    return (
        f"its certificate is not one of a worker of {whose}: {named}; issue it one with the URI "
        f"{uri}"
    )


def wrong_identity(ids: Iterable[str], service: str) -> str:
    """Why no trust domain takes a certificate with these ids for one of a worker of `service`.

    Empty if one does, and where none of the ids is one of Fingerpost's form.
    """
    shown = tuple(ids)
    domains = [match[1] for each in shown if (match := _OURS.match(each))]
    problems = [worker_problem(shown, each, service) for each in domains]
    return problems[0] if problems and all(problems) else ""


def _is_id(text: str) -> bool:
    if len(text) > _MAX_ID_BYTES or not _ID.fullmatch(text):
        return False
    return not any(part in (".", "..") for part in text.split("/"))
