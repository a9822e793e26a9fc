"""Why a call ends without an answer of a worker."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fingerpost.client.routing import Outcome
from fingerpost.errors import CallerError, DeadlineExceeded, NoWorker, UnknownModel, UnknownService

if TYPE_CHECKING:
    from fingerpost.client.dispatch.call import Call
    from fingerpost.client.dispatch.service import Service
    from fingerpost.client.transport.reply import Reply

__all__ = [
    "check_served",
    "left_out",
    "too_late",
    "unknown_service",
    "worth_another_entry",
    "worth_another_peer",
]


def too_late(call: Call, service: Service | None) -> DeadlineExceeded:
    """The error of a call whose deadline has passed, or would pass before the next attempt.

    It says what the call was waiting for. `service` is None if it looked for no workers yet.
    """
    return DeadlineExceeded(
        f"{call.reference}: no answer by the deadline, after {call.attempts} attempts; "
        f"{_cause(call, service)}"
    )


def left_out(call: Call, *, wait_s: float, left_s: float) -> DeadlineExceeded:
    """The error of a call before its deadline: until then no worker takes it.

    Args:
        wait_s: until the first worker may be asked again; infinite if the image would not arrive.
        left_s: until the deadline.
    """
    if wait_s == inf:
        return DeadlineExceeded(
            f"{call.reference}: not sent: with the images that are on their way, it would not "
            f"arrive before its deadline, which is in {left_s:.3g} s; send fewer at a time, or "
            "give more time (timeout_s)"
        )
    last = "" if call.last_error is None else f"; the last one failed: {call.last_error}"
    return DeadlineExceeded(
        f"{call.reference}: not before the deadline, which is in {left_s:.3g} s: all workers have "
        f"asked to be left alone (Retry-After), the first for {wait_s:.3g} s more, after "
        f"{call.attempts} attempts{last}"
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
    if call.left_out:
        return "all workers that serve it had asked to be left alone (Retry-After)"
    if call.peer is not None:
        return f"{call.peer.address} had not answered yet; give more time (timeout_s)"
    return "give more time (timeout_s)"


def check_served(service: Service, call: Call, *, late: bool) -> None:
    """Raise why there is no worker to pick, unless one may still come (`late`: no longer)."""
    name, snapshot = call.reference.model, service.balancer.snapshot
    if snapshot is None:
        return
    if not snapshot.known:
        raise unknown_service(name)
    if snapshot.instances:
        models = [each for one in snapshot.instances for each in one.models if each.name == name]
        versions = sorted({version for each in models for version in each.versions}, key=int)
        aliases = sorted({alias for each in models for alias in each.aliases})
        raise UnknownModel(
            f"no worker of {name!r} serves {call.reference}; its versions are "
            f"{', '.join(versions) or 'none'} and its aliases {', '.join(aliases) or 'none'}"
        )
    if late:
        if (missing := service.missing()) is not None:
            raise missing from call.last_error
        raise NoWorker(
            f"{name!r} is known, but no healthy worker serves it; start one, or wait longer for "
            "one (wait_for_ready_s)"
        ) from call.last_error


def unknown_service(service: str) -> UnknownService:
    """The error for a service that the registry does not have."""
    return UnknownService(
        f"no service {service!r}: the name is misspelled, or no worker of it has registered yet"
    )


def worth_another_peer(call: Call, service: Service, reply: Reply) -> bool:
    """Whether a `CallerError` may be due to this peer alone, so that another peer is worth asking.

    Not any more once all peers have answered with the same error, and with nothing else.
    """
    error = reply.error
    if not isinstance(error, CallerError) or reply.outcome is Outcome.ANSWERED:
        return False
    codes = {*call.retried, error.code}
    return len(codes) > 1 or len(call.retried) + 1 < len(service.balancer.endpoints)


def worth_another_entry(call: Call, service: Service, now: float) -> bool:
    """Whether to go on after a peer that is not what its entry says.

    Not any more once all peers have said so, and one of them that it does not serve the model: then
    no worker does. Where all are other processes, the entries of these are on their way.
    """
    peers = service.balancer.serving(call.reference, now)
    return call.unknown is None or any(each.id not in call.disowned for each in peers)
