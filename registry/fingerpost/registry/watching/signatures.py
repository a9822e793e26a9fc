"""Which entries are left out because of their signatures.

A signature is verified once for each content of an entry, not at each poll: verifying takes 0.2 ms,
comparing with what was verified 2 us. Many at once, as of 1,000 workers at the start, are verified
in slices of 2 ms, between which the event loop runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.registry.address_policy import Rejection, RejectionReason
from fingerpost.registry.entry_signature import entry_verdict
from fingerpost.security.signing.statement import Flaw, Verdict

if TYPE_CHECKING:
    from fingerpost.registry.address_policy import AddressPolicy
    from fingerpost.registry.instance import Instance
    from fingerpost.security.signing.trusted_keys import TrustedKeysFile

__all__ = ["EntrySignatures", "entry_rejection", "open_signatures"]

_SLICE: Final = 8
# How far the clocks of a worker and a reader may differ.
_TOLERANCE_S: Final = 30.0

_REASONS: Final = {
    Flaw.UNSIGNED: RejectionReason.UNSIGNED,
    Flaw.MALFORMED: RejectionReason.WRONG_SIGNATURE,
    Flaw.WRONG_SIGNATURE: RejectionReason.WRONG_SIGNATURE,
    Flaw.UNKNOWN_KEY: RejectionReason.UNKNOWN_KEY,
    Flaw.NOT_ALLOWED: RejectionReason.KEY_NOT_ALLOWED,
}
_FOREIGN: Final = (
    "it is not a Fingerpost worker, and nothing proves who it is: name the service "
    "(--foreign-service {service}) if it is to be used all the same"
)
_REMEDIES: Final = {
    Flaw.UNSIGNED: "it is not signed: start the worker with --registration-key, if it is yours",
    Flaw.MALFORMED: "its signature is not valid",
    Flaw.WRONG_SIGNATURE: "its signature does not match its content: somebody has changed it",
    Flaw.UNKNOWN_KEY: "it is signed by the key {kid}, which is not in {path}",
    Flaw.NOT_ALLOWED: "the key {kid} that signed it may not sign for {service} (`services` in "
    "{path})",
}


def open_signatures(path: str | None) -> EntrySignatures | None:
    """What leaves out entries that no key in the file has signed; None for no file.

    Raises:
        ConfigurationError: see `TrustedKeysFile`.
    """
    if path is None:
        return None
    from fingerpost.security.signing.trusted_keys import TrustedKeysFile

    return EntrySignatures(TrustedKeysFile(Path(path)))


def entry_rejection(
    instance: Instance,
    address_policy: AddressPolicy,
    signatures: EntrySignatures | None,
    *,
    ended: bool = True,
) -> Rejection | None:
    """Why an entry is not used, by its address or its signature; None where it is.

    With `ended` false, a signature that has ended is as good as another.
    """
    rejection = address_policy.rejection(instance)
    if rejection is not None:
        return rejection
    if instance.foreign:
        signed = signatures is not None and bool(instance.signature)
        if not address_policy.takes_foreign(instance.service, unnamed=signatures is None or signed):
            return Rejection(RejectionReason.FOREIGN, _FOREIGN.format(service=instance.service))
        if not signed:
            return None
    return None if signatures is None else signatures.rejection(instance, ended=ended)


class EntrySignatures:
    """Which entries are left out because of their signatures.

    Args:
        keys: the public keys, whose file may change.
        wall: Unix time.
    """

    def __init__(self, keys: TrustedKeysFile, *, wall: Callable[[], float] = time.time) -> None:
        self._file = keys
        self._wall = wall
        self._keys = keys.current()
        self._verified: dict[str, dict[str, tuple[Instance, Verdict]]] = {}

    async def verify(self, service: str, instances: Iterable[Instance]) -> None:
        """Verify what has changed in a service's entries; call it with all of them at each poll.

        The event loop runs in between. The file of keys is read again here.
        """
        if (keys := self._file.current()) is not self._keys:
            self._keys = keys
            self._verified.clear()
        verified: dict[str, tuple[Instance, Verdict]] = {}
        done = 0
        for instance in instances:
            verdict = self._known(instance)
            if verdict is None:
                verdict = self._judge(instance)
                done += 1
                if not done % _SLICE:
                    await asyncio.sleep(0)
            # A wrong entry never takes the place of a right one that has the same id.
            if verdict.flaw is None or instance.id not in verified:
                verified[instance.id] = instance, verdict
        if keys is self._keys:
            self._verified[service] = verified

    def rejection(self, instance: Instance, *, ended: bool = True) -> Rejection | None:
        """Why an entry is left out, or None. Verifies it where `verify` did not.

        With `ended` false, a signature that has ended is as good as another.
        """
        verdict = self._known(instance) or self._judge(instance)
        flaw = verdict.flaw
        if flaw is None:
            ended_s = self._wall() - verdict.expires
            if not ended or ended_s <= _TOLERANCE_S:
                return None
            return Rejection(
                RejectionReason.SIGNATURE_EXPIRED,
                f"its signature ended {ended_s:.0f} s ago: its worker is gone, or a clock is wrong",
            )
        why = _REMEDIES[flaw].format(
            kid=verdict.kid,
            path=self._file.path,
            service=instance.service,
        )
        return Rejection(_REASONS[flaw], why)

    def _known(self, instance: Instance) -> Verdict | None:
        known = self._verified.get(instance.service, {}).get(instance.id)
        return known[1] if known is not None and known[0] == instance else None

    def _judge(self, instance: Instance) -> Verdict:
        return entry_verdict(instance, self._keys)
