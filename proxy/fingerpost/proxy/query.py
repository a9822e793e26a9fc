"""What `GET /v1/resolve/{service}` asks for, read from its path and query."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import InvalidRequest
from fingerpost.registry import ModelReference
from fingerpost.registry.http.query_parameters import check_parameters
from fingerpost.registry.old_spellings import warn_old_spelling

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ResolveQuery"]

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)?", re.ASCII)
_KNOWN: Final = ("version", "alias", "n", "zone", "index", "wait")
_OLD: Final = "label"  # what release 0.1.0 has for `alias`
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class ResolveQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A checked question for the instances of a service.

    Attributes:
        reference: the service, and the version or alias if one was asked for.
        index: the index of the caller's last answer; 0 asks for an answer at once.
        wait_s: how long to wait for another index, in seconds.
        start_wait_s: how long the lookup may be held for the first worker, in seconds: `wait`
            without an index, else as long as the proxy does.
        count: most instances wanted; 0 for all.
        zone: the zone whose instances come first; empty for no preference.
    """

    reference: ModelReference
    index: int = 0
    wait_s: float = 20.0
    start_wait_s: float = math.inf
    count: int = 0
    zone: str = ""

    @classmethod
    def parse(cls, service: str, query: Mapping[str, str]) -> ResolveQuery:
        """Read the path's last part and the query.

        Raises:
            InvalidName: the service, version or alias is not a valid name.
            InvalidRequest: a parameter is not known, has a wrong value, or contradicts another one.
        """
        if not query:
            return cls(reference=ModelReference.parse(service))
        check_parameters((name for name in query if name != _OLD), _KNOWN)
        return cls(
            reference=_reference(service, query),
            index=_number(query, "index", digits=19, what="the index of an earlier answer"),
            wait_s=_duration_s(query.get("wait", "20s")),
            start_wait_s=_duration_s(query["wait"]) if "wait" in query else math.inf,
            count=_number(query, "n", digits=6, what="the number of instances wanted, 0 for all"),
            zone=query.get("zone", ""),
        )


def _reference(service: str, query: Mapping[str, str]) -> ModelReference:
    """`flowers@3` as in the path, or `version=` and `alias=` as in the query; not both."""
    reference = ModelReference.parse(service)
    version, alias = query.get("version"), query.get("alias")
    if label := query.get(_OLD):
        warn_old_spelling("label=", "alias=", "GET /v1/resolve", "change the callers' URLs")
    wanted = [each for each in (version, alias, label, reference.version, reference.alias) if each]
    if len(wanted) > 1:
        raise InvalidRequest(f"{' and '.join(wanted)} were asked for: give one version or alias")
    alias = alias or label
    if not (version or alias):
        return reference
    parsed = ModelReference.parse(f"{reference.model}@{version or alias}")
    if (parsed.version, parsed.alias) != (version or None, alias or None):
        raise InvalidRequest(f"version={version!r}, alias={alias!r}: versions are whole numbers")
    return parsed


def _number(query: Mapping[str, str], name: str, *, digits: int, what: str) -> int:
    text = query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise InvalidRequest(f"{name}={text!r}: give {what}")
    return int(text)


def _duration_s(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"wait={text!r}: give a duration such as 30s or 500ms")
    return float(match[1]) * _UNIT_S[match[2]]
