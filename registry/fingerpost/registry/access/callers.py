"""The callers of one HTTP server: who each request is from, and what is said of those refused."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aiohttp import hdrs

from fingerpost.basics.log_limit import LogLimit
from fingerpost.basics.printable import one_line
from fingerpost.basics.supervision import supervise
from fingerpost.errors import ConfigurationError, Overloaded
from fingerpost.registry.access.issuer_keys import IssuerKeys
from fingerpost.security.attempts import Attempts
from fingerpost.security.audit.audit_log import AuditLog
from fingerpost.security.caller import ANYBODY, Caller
from fingerpost.security.callers.authenticator import Authenticator, Identified, bearer
from fingerpost.security.callers.policy import ROLES
from fingerpost.security.callers.policy_file import PolicyFile
from fingerpost.security.callers.refusal import NotAllowed, NotIdentified, Refusal
from fingerpost.security.callers.tokens import KeyNotKnown
from fingerpost.security.tls import peer_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fingerpost.registry.access.config import CallersConfig
    from fingerpost.registry.access.metrics import AccessMetrics
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.security.audit.audit_log import Result

__all__ = ["Callers", "check_model", "may_see"]

logger = logging.getLogger(__name__)


class Callers:
    """Finds out who sends a request; inside `async with` it follows the policy file.

    A key or token that is known is found at once, also where its address sends wrong ones: only
    what is not known is slowed down, see `Attempts`.

    Args:
        config: which policy and which audit log.
        metrics: see `AccessMetrics`.
        changed: called when somebody may have lost a right, so that held requests ask again.

    Attributes:
        required: whether callers have to say who they are.

    Raises:
        ConfigurationError: the policy or the audit log cannot be used, to begin with.
    """

    def __init__(
        self,
        config: CallersConfig,
        metrics: AccessMetrics,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._on_change = changed
        self._attempts = Attempts()
        self._log_limit = LogLimit()
        self._file = None if config.policy is None else PolicyFile(Path(config.policy))
        self.required = self._file is not None
        self._keys: IssuerKeys | None = None
        self._authenticator: Authenticator | None = None
        self.audit = (
            AuditLog(config.audit_log, dropped=metrics.audit_dropped) if config.audit_log else None
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin to follow the policy file, and to fetch the keys of its issuers."""
        async with AsyncExitStack() as stack:
            if self.audit is not None:
                stack.push_async_callback(asyncio.to_thread, self.audit.close)
            if self._file is not None:
                self._keys = IssuerKeys(self._keys_changed)
                stack.push_async_callback(self._keys.aclose)
                self._use_policy()
                self._keys.refresh_due()
            if self._file is not None or self.audit is not None:
                follower = asyncio.create_task(supervise(self._follow, "callers"), name="callers")
                stack.push_async_callback(_cancel, follower)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop that, and write what is waiting for the audit log."""
        await self._stack.aclose()

    @property
    def problems(self) -> list[str]:
        """What is wrong with the policy and its issuers now, for people who operate the server."""
        found = [self._file.problem] if self._file is not None and self._file.problem else []
        if found:
            found[0] += "; the last good policy stays in use"
        for issuer, problem in (self._keys.problems if self._keys else {}).items():
            found.append(f"the keys of {issuer} cannot be read: {problem}")
        return found

    def find(self, request: RequestHead) -> Caller | None:
        """Who sends a request, where that is known at once; it counts and refuses nothing."""
        found = self._known(request)
        return None if found is None else found.caller

    async def identify(self, request: RequestHead, action: str = "", target: str = "") -> Caller:
        """Who sends a request; `ANYBODY` where no policy is configured.

        Args:
            request: its `Authorization`, and the client certificate of its connection, are used.
            action, target: what is asked for, and of what, for the audit log.

        Raises:
            NotIdentified: nobody whom the policy knows; 401.
            NotAllowed: somebody who is disabled; 403.
            Overloaded: its address tried too many wrong credentials.
        """
        authenticator = self._authenticator
        if authenticator is None:
            return ANYBODY
        address = request.remote or ""
        try:
            found = await self._identified(authenticator, request, address)
        except (NotIdentified, NotAllowed) as error:
            who = error.caller if isinstance(error, NotAllowed) else ANYBODY
            self.refused(
                request, error.reason, error.detail, action=action, target=target, caller=who
            )
            raise
        except Overloaded:
            text = "too many wrong credentials"
            self.refused(request, Refusal.TOO_MANY, text, action=action, target=target)
            raise
        return found.caller

    async def allow(self, request: RequestHead, model: str, action: str) -> Caller:
        """Who sends a request for a model that it may use, whether that exists or not.

        Raises:
            NotIdentified, NotAllowed, Overloaded: see `identify` and `require_model`.
        """
        caller = await self.identify(request, action)
        self.require_model(request, caller, model, action)
        return caller

    def seconds_left(self, request: RequestHead) -> float:
        """How long what `identify` found holds."""
        found = self._known(request)
        return math.inf if found is None else max(0.0, found.expires_at - time.time())

    def require_model(self, request: RequestHead, caller: Caller, model: str, action: str) -> None:
        """Check that a caller may use a model, which need not exist.

        Raises:
            NotAllowed: it may not.
        """
        try:
            check_model(caller, model)
        except NotAllowed as error:
            self.refused(request, error.reason, error.detail, action=action, caller=caller)
            raise

    def require_role(
        self, request: RequestHead, caller: Caller, role: str, action: str, target: str = ""
    ) -> None:
        """Check that a caller has a role, or one that may more.

        Raises:
            NotAllowed: it has not.
        """
        if ROLES.index(caller.role) >= ROLES.index(role):
            return
        problem = f"this needs the role {role}, and {caller.identity} has {caller.role or 'none'}"
        self.refused(request, Refusal.ROLE, problem, action=action, target=target, caller=caller)
        raise NotAllowed(Refusal.ROLE, problem)

    def refused(
        self,
        request: RequestHead,
        reason: Refusal,
        detail: str,
        *,
        action: str = "",
        target: str = "",
        caller: Caller = ANYBODY,
        log: bool = True,
    ) -> None:
        """Count and write down a refusal; `log` says it in the log too."""
        self._metrics.refused(reason)
        address, path = request.remote or "", one_line(request.path, 200)
        if log and (count := self._log_limit.count(time.monotonic())):
            others = f" ({count - 1} others since the last such line)" if count > 1 else ""
            logger.warning(
                "%s %s from %s is refused: %s%s",
                request.method, path, address, one_line(detail, 300), others,
            )  # fmt: skip
        if self.audit is not None:
            self.audit.write(
                action or f"{request.method} {path}",
                target or path,
                "refused",
                caller=caller,
                source=address,
                detail=f"{reason.value}: {detail}",
            )

    def ordered(
        self,
        request: RequestHead,
        caller: Caller,
        action: str,
        target: str,
        result: Result,
        detail: str = "",
    ) -> None:
        """Count and write down an order that was carried out, or that failed."""
        self._metrics.ordered(result)
        if self.audit is not None:
            self.audit.write(
                action,
                target,
                result,
                caller=caller,
                source=request.remote or "",
                detail=detail,
            )

    def _known(self, request: RequestHead) -> Identified | None:
        if self._authenticator is None:
            return None
        try:
            token = bearer(request.headers.getall(hdrs.AUTHORIZATION, ()))
            names = () if token else _certificate_names(request)
            return self._authenticator.find(token, names, time.time())
        except (NotIdentified, NotAllowed):
            return None

    async def _identified(
        self, authenticator: Authenticator, request: RequestHead, address: str
    ) -> Identified:
        try:
            token = bearer(request.headers.getall(hdrs.AUTHORIZATION, ()))
            names = () if token else _certificate_names(request)
            found = authenticator.find(token, names, time.time())
        except NotIdentified:
            await self._slow_down(address)
            self._attempts.failed(address, asyncio.get_running_loop().time())
            raise
        if found is not None:
            return found
        await self._slow_down(address)
        try:
            return await self._verified(authenticator, token)
        except NotIdentified:
            self._attempts.failed(address, asyncio.get_running_loop().time())
            raise

    async def _verified(self, authenticator: Authenticator, token: str) -> Identified:
        try:
            return authenticator.verify(token, time.time())
        except KeyNotKnown as error:
            keys = self._keys
            if keys is None or not await keys.fetch_again(error.issuer):
                raise
        return authenticator.verify(token, time.time())

    async def _slow_down(self, address: str) -> None:
        """Wait as `Attempts` says. Raises `Overloaded`."""
        wait_s = self._attempts.wait_s(address, asyncio.get_running_loop().time())
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _follow(self) -> None:
        """Read the policy again when its file changes, and its issuers' keys when they are old."""
        while True:
            await asyncio.sleep(self._config.policy_poll_s)
            if self.audit is not None:
                self.audit.tick(time.monotonic())
            file, keys = self._file, self._keys
            if file is None or keys is None:
                continue
            # In a thread: a file with 10,000 callers takes a second.
            if file.changed() and await asyncio.to_thread(file.read_again):
                try:
                    self._use_policy()
                    self._on_change()
                except ConfigurationError as error:  # it has issuers, and joserfc is missing
                    file.problem = error.message
                    logger.error("%s; the last good policy stays in use", error)  # noqa: TRY400
            keys.refresh_due()
            self._metrics.policy_broken.set(bool(file.problem))
            self._metrics.issuers_failing.set(len(keys.problems))

    def _use_policy(self) -> None:
        if self._file is None or self._keys is None:
            return
        policy = self._file.policy
        self._authenticator = Authenticator(policy, self._keys.get)
        self._keys.follow(policy.issuers)
        self._metrics.policy_callers.set(len(policy.entries))

    def _keys_changed(self) -> None:
        if self._authenticator is not None:
            self._authenticator.forget()
            self._on_change()


def check_model(caller: Caller, model: str) -> None:
    """Raise `NotAllowed` where a caller may not use a model; it need not exist."""
    if not may_see(caller, model):
        raise NotAllowed(Refusal.MODEL, f"{caller.identity} may not use {one_line(model, 100)!r}")


def may_see(caller: Caller, model: str) -> bool:
    """Whether a caller may use a model, and so find it in lists."""
    models = caller.rights.models
    return models is None or model in models


def _certificate_names(request: RequestHead) -> Sequence[str]:
    """SPIFFE ids and subject of the verified client certificate of a request's connection."""
    found = peer_certificate(request.transport)
    if found is None:
        return ()
    return (*found.spiffe_ids, *filter(None, (found.subject,)))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
