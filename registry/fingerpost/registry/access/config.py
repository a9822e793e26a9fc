"""The settings of who may ask, the same for proxies and workers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CallersConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallersConfig:
    """Who may ask a server, and where that is written down.

    Attributes:
        policy: the policy file, which is read again when it changes; see
            `fingerpost.security.callers.policy`. None, the default: everybody may ask, as tenant
            `default`.
        audit_log: a file for one line of JSON for each order and each refusal; `-` is standard
            output. None, the default, writes none.
        policy_poll_s: how many seconds pass between two looks whether the policy file has changed.
            Less takes a right away sooner, for more `stat` calls.
    """

    policy: str | None = None
    audit_log: str | None = None
    policy_poll_s: float = 1.0
