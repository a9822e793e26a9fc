"""Loads and unloads models over gRPC, for callers who may: Triton's repository calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fingerpost.errors import InvalidRequest, UnknownPath
from fingerpost.worker.grpc.schema.messages import message_class

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fingerpost.registry.grpc.call_head import CallHead
    from fingerpost.worker.protocols.admin_access import AdminAccess
    from fingerpost.worker.repository.control import ModelControl

__all__ = ["GrpcModelControl"]


class GrpcModelControl:
    """Orders to load and unload, with the roles and the audit log that they have over HTTP.

    Args:
        control: carries them out; None where the worker has no admin API.
        access: who may give them.
    """

    def __init__(self, control: ModelControl | None, access: AdminAccess | None) -> None:
        self._control = control
        self._access = access

    async def load(self, request: Any, head: CallHead) -> Any:
        """Load the versions of a model that the policy chooses; answered when they are warm."""
        control, access = self._allowed()
        name = request.model_name
        if request.parameters:
            given = ", ".join(request.parameters)[:200]
            raise InvalidRequest(
                f"a load with {given} is not supported: {name[:100]} is loaded from the disk"
            )
        await _ordered(access, head, "operate", "load model", name, control.load_model)
        return message_class("inference.RepositoryModelLoadResponse")()

    async def unload(self, request: Any, head: CallHead) -> Any:
        """Unload all versions of a model; answered when clients are not told of it any more."""
        control, access = self._allowed()
        name = request.model_name
        await _ordered(access, head, "admin", "unload model", name, control.unload_model)
        return message_class("inference.RepositoryModelUnloadResponse")()

    def _allowed(self) -> tuple[ModelControl, AdminAccess]:
        if self._control is None or self._access is None:
            raise UnknownPath(
                "models cannot be loaded by clients here: start the worker with "
                "--admin-token-file, or with --callers"
            )
        return self._control, self._access


async def _ordered(
    access: AdminAccess,
    head: CallHead,
    role: str,
    action: str,
    model: str,
    order: Callable[[str], Awaitable[None]],
) -> None:
    """Carry out an order of a caller with the role; it is written down with its result."""
    caller = await access.check(head, role, action, model)
    try:
        await order(model)
    except asyncio.CancelledError:
        access.ordered(head, caller, action, model, "the caller left, or the worker")
        raise
    except Exception as error:
        access.ordered(head, caller, action, model, error)
        raise
    access.ordered(head, caller, action, model)
