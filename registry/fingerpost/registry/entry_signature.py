"""Who may register: the signatures of entries. Pure.

A worker with a registration key signs the canonical form of its instance: everything that routing
believes, in JSON with sorted keys, without what has its default value. The signature is the field
`Instance.signature`, and travels as the other fields do: in Consul's metadata, in ZooKeeper's node,
in a proxy's answer. It ends after some hours, so that a copy of an entry cannot be registered again
for ever; the worker renews it long before. A worker that advertises another address to other
datacenters signs twice, once with each host: the two signatures are joined by `~`.

A reader with public keys leaves out entries without a valid signature: `watching.signatures`.

Rejected: signing what Consul's agent stores (its checks and tags are not the worker's to know), and
a signature of each load report (an Ed25519 signature takes 70 us, and load changes all the time).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.registry.instance import Instance
from fingerpost.security.signing.statement import Flaw, Statement, Verdict, sign_statement

if TYPE_CHECKING:
    from fingerpost.security.keys import SigningKey
    from fingerpost.security.signing.trusted_keys import TrustedKeys

__all__ = ["canonical_entry", "entry_verdict", "sign_entry"]

_PURPOSE: Final = "registration"
_JOINED: Final = "~"
_MAX_LETTERS: Final = 400

_DEFAULTS: Final[dict[str, Any]] = {
    each.name: each.default
    if each.default is not msgspec.NODEFAULT
    else each.default_factory()
    if each.default_factory is not msgspec.NODEFAULT
    else msgspec.NODEFAULT
    for each in msgspec.structs.fields(Instance)
    if each.name != "signature"
}


def canonical_entry(instance: Instance) -> bytes:
    """What is signed: the fields that do not have their default, as JSON with sorted keys."""
    fields = {name: getattr(instance, name) for name in _DEFAULTS}
    return msgspec.json.encode(
        {name: value for name, value in fields.items() if value != _DEFAULTS[name]},
        order="sorted",
    )


def sign_entry(
    instance: Instance, key: SigningKey, *, expires: int, wan_address: str | None = None
) -> Instance:
    """The instance with its signature.

    Args:
        instance: what is registered.
        key: the registration key.
        expires: Unix time of the signature's last second.
        wan_address: the host that readers in other datacenters get instead.
    """
    hosts = (instance.host, *((wan_address,) if wan_address else ()))
    signatures = (
        sign_statement(
            key,
            purpose=_PURPOSE,
            data=canonical_entry(msgspec.structs.replace(instance, host=host)),
            expires=expires,
        )
        for host in hosts
    )
    return msgspec.structs.replace(instance, signature=_JOINED.join(signatures))


def entry_verdict(instance: Instance, keys: TrustedKeys) -> Verdict:
    """What an entry's signature is worth; 0.2 ms."""
    text = instance.signature or ""
    if not text:
        return Verdict(Flaw.UNSIGNED)
    verdict = Verdict(Flaw.MALFORMED)
    if len(text) > _MAX_LETTERS:
        return verdict
    data = canonical_entry(instance)
    for each in text.split(_JOINED):
        statement = Statement.parse(each)
        if statement is not None:
            verdict = statement.verdict(keys, purpose=_PURPOSE, data=data, name=instance.service)
            if verdict.flaw is not Flaw.WRONG_SIGNATURE:
                return verdict
    return verdict
