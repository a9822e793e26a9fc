"""Which workers a relayed request goes to, and at which path. Pure.

A request of Fingerpost's own protocol goes to the workers that speak it. One for a foreign worker
comes to `/v1/relay/foreign/SERVICE` in that worker's protocol already, and is sent on as it is, to
the path of the worker's metadata: never to a path that the caller names. So the relay stays a pipe,
which decodes no image and holds no body. Rejected: translating in the proxy, which would decode the
images of all clients, and hold each of them whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.foreign.metadata import ForeignModel
from fingerpost.client.wire import FOREIGN_RELAY_PATH, INFER_RELAY_PATH
from fingerpost.errors import NoWorker, Unauthorized
from fingerpost.registry.http.query_parameters import check_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yarl import URL

    from fingerpost.registry import Instance, ModelReference

__all__ = ["relay_target"]

_OURS: Final = "fingerpost"


def relay_target(
    asked: URL, reference: ModelReference, workers: Sequence[Instance]
) -> tuple[list[Instance], str]:
    """The workers to try, in this order, and the path and query at each of them.

    Args:
        asked: the URL of the request.
        reference: the model and version in it.
        workers: all that serve it, in the order in which they are to be tried.

    Raises:
        InvalidRequest: a parameter is not known.
        InvalidInstance: the metadata of a foreign worker is not valid.
        Unauthorized: there are only workers of the other kind.
        NoWorker: the foreign worker that the request names is not in the list.
    """
    if asked.path.startswith(FOREIGN_RELAY_PATH):
        return _foreign(asked, reference, workers)
    check_parameters(asked.query, ("top",))
    ours = [each for each in workers if each.protocol == _OURS]
    if not ours:
        raise Unauthorized(
            f"{reference} is served by foreign workers, which speak another protocol: send the "
            f"request of their protocol to {FOREIGN_RELAY_PATH}{reference}"
        )
    kind = "infer" if asked.path.startswith(INFER_RELAY_PATH) else "classify"
    query = f"?{asked.query_string}" if asked.query_string else ""
    return ours, f"/v1/{kind}/{reference}{query}"


def _foreign(
    asked: URL, reference: ModelReference, workers: Sequence[Instance]
) -> tuple[list[Instance], str]:
    check_parameters(asked.query, ("worker",))
    foreign = [each for each in workers if each.protocol != _OURS]
    if not foreign:
        raise Unauthorized(
            f"{reference} is served by Fingerpost's own workers: send the image to "
            f"/v1/relay/{reference}"
        )
    if (named := asked.query.get("worker")) is not None:
        foreign = [each for each in foreign if each.id == named]
        if not foreign:
            raise NoWorker(
                f"this proxy knows no worker {named[:80]!r} of {reference}: resolve it again",
                retry_after_s=1.0,
            )
    first = ForeignModel.of(foreign[0])
    # The others may speak another protocol than that in which this request is written.
    same = [each for each in foreign if each.meta == foreign[0].meta]
    return same, first.path
