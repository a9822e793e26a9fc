"""Whether an empty answer of Consul is true, or the token may not read the entries.

Without the right `node` or `service` read, Consul answers with status 200 and an empty list, and
1.8.7 gives no hint of it (later releases send `X-Consul-Results-Filtered-By-ACLs`). Its UI asks
`/v1/internal/acl/authorize` which buttons to show; since 1.7 that answers exactly this question,
with any token. Rejected: `/v1/acl/token/self`, which names a token's policies but not their rules;
`/v1/catalog/nodes`, which is empty without node read, but not without service read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fingerpost.errors import RegistryDenied
from fingerpost.registry.peers.answer import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.registry.consul.http import Answer, ConsulHttp, Pool

__all__ = ["check_acl"]


class _Right(msgspec.Struct, rename="pascal"):
    resource: str
    allow: bool


async def check_acl(
    http: ConsulHttp,
    answer: Answer,
    service: str | None,
    *,
    params: Mapping[str, str],
    pool: Pool,
) -> None:
    """Find out whether `answer`, which has an empty list, is empty because of missing rights.

    Args:
        http: where to ask.
        answer: the empty answer.
        service: the service in question; None for the list of all services. Then only node read is
            checked, because a worker's token has it and reads no services but its own.
        params: the datacenter and namespace of the read.
        pool: whose connections to use.

    Raises:
        RegistryDenied: it is; the message names the missing rules.
        RegistryError: it could not be found out, so that the empty answer must not be used.
    """
    wanted: list[dict[str, Any]] = [{"Resource": "node", "Segment": "", "Access": "read"}]
    if service is not None:
        wanted.append({"Resource": "service", "Segment": service, "Access": "read"})
    path = "/v1/internal/acl/authorize"
    reply = await http.call(
        "POST", path, params=params, data=msgspec.json.encode(wanted), pool=pool, any_status=True
    )
    missing: list[str] = []
    if reply.status == 200:
        missing = [_rule(right.resource, service) for right in _read(reply.body) if not right.allow]
    elif reply.status not in (400, 401, 404, 405):
        # 401: ACLs are disabled. 400, 404 or 405: not Consul, or older than 1.7.
        http.check(reply, f"POST {http.base_url}{path}")
    if not missing and answer.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
        missing = ["a rule that Consul does not name"]
    if missing:
        about = "the list of services" if service is None else f"the list of {service!r}"
        raise RegistryDenied(
            f"{http.base_url}: {about} is empty because the token lacks "
            f"{' and '.join(missing)}; add it to the token's policy"
        )


def _rule(resource: str, service: str | None) -> str:
    if resource == "node":
        return 'node_prefix "" { policy = "read" }'
    return f'service "{service}" {{ policy = "read" }}'


def _read(body: bytes) -> list[_Right]:
    try:
        return msgspec.json.decode(body, type=list[_Right])
    except DECODE_ERRORS:
        return []  # whatever this is, it is not Consul's answer
