"""The head of a call for a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fingerpost.client.wire import DEADLINE_HEADER
from fingerpost.registry.grpc.call_head import CallHead

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

__all__ = ["call_head"]


def call_head(path: str, context: ServicerContext[Any, Any]) -> CallHead:
    """The head of a call, with its deadline as the header that HTTP clients send.

    Args:
        path: of the method, `/package.Service/Method`.
        context: the call.
    """
    head = CallHead(path, context)
    left_s = context.time_remaining()
    if left_s is not None:
        head.headers[DEADLINE_HEADER] = str(left_s * 1000)
    return head
