"""What proxies answer, checked as a registry's answers are: a proxy may be anybody's server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.basics.printable import one_line
from fingerpost.client.wire import AnswerHead, ResolvedInstance, ServicesAnswer
from fingerpost.errors import BadAnswer
from fingerpost.registry import Snapshot
from fingerpost.registry.address_policy import RejectedEntries, Rejection, RejectionReason
from fingerpost.registry.names import check_service
from fingerpost.registry.peers.answer import DECODE_ERRORS, decode_answer
from fingerpost.registry.watching.signatures import EntrySignatures, entry_rejection

if TYPE_CHECKING:
    from fingerpost.registry import Instance
    from fingerpost.registry.address_policy import AddressPolicy

__all__ = ["ProxyAnswers", "Unlisted"]

logger = logging.getLogger(__name__)

_MAX_SERVICES: Final = 10_000
_MAX_ID_LETTERS: Final = 128
# More than a proxy of ours sends of one service.
_MAX_REASONS: Final = 1000
_MAX_REASON_LETTERS: Final = 500


class _Received(AnswerHead, frozen=True, kw_only=True):
    """A `ResolveAnswer` whose instances are decoded one by one, so that one cannot spoil all."""

    instances: tuple[msgspec.Raw, ...]


class _Id(msgspec.Struct):
    id: str


_resolve: Final = msgspec.json.Decoder(_Received)
_services: Final = msgspec.json.Decoder(ServicesAnswer)
_instance: Final = msgspec.json.Decoder(ResolvedInstance)
_id: Final = msgspec.json.Decoder(_Id)


class Unlisted(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of one service that are registered, but not listed.

    Attributes:
        withdrawn: ids of those that are drained or not well.
        failing: why the registry's check of a worker fails, by its id, for people.
        rejected: why an entry is left out, by its id, likewise.
    """

    withdrawn: tuple[str, ...] = ()
    failing: Mapping[str, str] = {}
    rejected: Mapping[str, str] = {}


class ProxyAnswers:
    """Reads answers of proxies, and judges the addresses in them.

    Args:
        address_policy: which addresses of workers are used.
        signatures: which signatures of workers are believed; None asks for none.

    Attributes:
        rejected_entries: the instances that were left out.
        leases: the newest signed lease for each service, of the proxies that sign some.
        problems: what the proxy that answered last said is wrong with it.
    """

    def __init__(
        self, address_policy: AddressPolicy, signatures: EntrySignatures | None = None
    ) -> None:
        self._address_policy = address_policy
        self._signatures = signatures
        self.rejected_entries = RejectedEntries()
        self.leases: dict[str, str] = {}
        self.problems: tuple[str, ...] = ()

    async def verify(self, body: bytes, service: str, proxy: str) -> None:
        """Verify the signatures in an answer, so that `snapshot` need not: see `EntrySignatures`.

        Raises:
            BadAnswer: the answer as a whole is not valid.
        """
        if self._signatures is None:
            return
        instances = []
        for raw in decode_answer(_resolve, body, proxy, "answer to a lookup").instances:
            with contextlib.suppress(*DECODE_ERRORS):
                instances.append(_instance.decode(bytes(raw).decode()).instance(service))
        await self._signatures.verify(service, instances)

    def snapshot(self, body: bytes, service: str, proxy: str, now: float) -> Snapshot:
        """The snapshot in an answer to `GET /v1/resolve/{service}`.

        Args:
            body: as it came.
            service: the service that was asked for.
            proxy: names the proxy in errors and logs.
            now: the local monotonic clock, to which the snapshot's age is converted.

        Raises:
            BadAnswer: the answer as a whole is not valid, or is about another service.
        """
        answer = decode_answer(_resolve, body, proxy, "answer to a lookup")
        if answer.service != service:
            raise BadAnswer(f"{proxy}: an answer about {answer.service!r}, not about {service!r}")
        if answer.lease is not msgspec.UNSET:
            self.leases[service] = answer.lease
        instances: dict[str, Instance] = {}
        rejected: dict[str, Rejection] = {}
        for raw in answer.instances:
            try:
                instance = _instance.decode(bytes(raw).decode()).instance(service)
            except DECODE_ERRORS as error:
                reason = Rejection(RejectionReason.MALFORMED, str(error)[:500])
                rejected[_id_of(raw)] = reason
                continue
            rejection = entry_rejection(instance, self._address_policy, self._signatures)
            if rejection is None and instance.id in instances:
                rejection = Rejection(RejectionReason.DUPLICATE, "its id is listed twice")
            if rejection is None:
                instances[instance.id] = instance
            else:
                rejected[instance.id] = rejection
        for id_, rejection in self.rejected_entries.note(service, rejected).items():
            logger.warning(
                "%s: instance %r of %s is not used: %r", proxy, id_, service, rejection.message
            )
        return Snapshot(
            service=service,
            instances=tuple(instances[each] for each in sorted(instances)),
            known=True,
            index=answer.index,
            taken_at=now - answer.age_s,
            retained=answer.retained,
            rejected=tuple((id_, each.message) for id_, each in rejected.items()),
            from_disk=answer.from_disk,
        )

    def services(self, body: bytes, proxy: str) -> dict[str, Unlisted]:
        """The services in an answer to `GET /v1/services`, each with its workers off the list.

        Raises:
            BadAnswer: the answer is not valid, a name is not, or there are more than 10,000.
        """
        answer = decode_answer(_services, body, proxy, "list of services")
        entries = answer.services
        self.problems = tuple(
            f"{proxy}: {one_line(each, _MAX_REASON_LETTERS)}" for each in answer.problems[:10]
        )
        if len(entries) > _MAX_SERVICES:
            raise BadAnswer(f"{proxy}: a list of {len(entries)} services")
        try:
            return {
                check_service(each.name): Unlisted(
                    # For people: the ids of entries that are left out may be no ids of ours.
                    withdrawn=tuple(one_line(id_, _MAX_ID_LETTERS) for id_ in each.withdrawn),
                    failing=_reasons(each.failing),
                    rejected=_reasons(each.rejected or {}),
                )
                for each in entries
            }
        except DECODE_ERRORS as error:
            raise BadAnswer(f"{proxy}: not a valid list of services: {error}") from error


def _reasons(of: Mapping[str, str]) -> dict[str, str]:
    return {
        one_line(id_, _MAX_ID_LETTERS): one_line(why, _MAX_REASON_LETTERS)
        for id_, why in islice(of.items(), _MAX_REASONS)
    }


def _id_of(raw: msgspec.Raw) -> str:
    """The id of an instance that cannot be read otherwise, at most 128 letters of it."""
    try:
        return _id.decode(raw).id[:_MAX_ID_LETTERS]
    except DECODE_ERRORS:
        return "?"
