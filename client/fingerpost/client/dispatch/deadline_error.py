"""The error of a call whose deadline has passed: it says what the call was waiting for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import DeadlineExceeded

if TYPE_CHECKING:
    from fingerpost.client.dispatch.call import Call
    from fingerpost.client.dispatch.service import Service

__all__ = ["deadline_error"]


def deadline_error(call: Call, service: Service | None) -> DeadlineExceeded:
    """The error of `call`; `service` is None where it had not begun to look for workers."""
    return DeadlineExceeded(
        f"{call.reference}: no answer by the deadline, after {call.attempts} attempts; "
        f"{_cause(call, service)}"
    )


def _cause(call: Call, service: Service | None) -> str:
    if call.last_error is not None:
        return f"the last one failed: {call.last_error}"
    if service is None:
        return "give more time (timeout_s)"
    if service.watch.view is None:
        reason = service.watch.error or "no answer yet"
        return f"it is not known yet where the workers are: {reason}"
    if not service.watch.view.instances:
        return "no healthy worker serves it"
    if call.peer is not None:
        return f"{call.peer.address} had not answered yet; give more time (timeout_s)"
    return "give more time (timeout_s)"
