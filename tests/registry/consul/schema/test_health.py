"""Which failed checks concern the worker itself, and withdraw its entry."""

from __future__ import annotations

import pytest
from tests.support.consul_entries import INSTANCE, decode, entry

# As Consul 1.8.7 and the embedded registry write them.
SERF = {"CheckID": "serfHealth", "Status": "passing", "Output": "Agent alive and reachable"}
DEAD_AGENT = SERF | {"Status": "critical", "Output": "Agent not live or unreachable"}


def http(status: str, output: str) -> dict[str, str]:
    return {"CheckID": "service:x", "Status": status, "Type": "http", "Output": output}


def ttl(status: str, output: str) -> dict[str, str]:
    return {"CheckID": "service:x", "Status": status, "Type": "ttl", "Output": output}


def maintenance(check_id: str) -> dict[str, str]:
    return {"CheckID": check_id, "Status": "critical", "Type": "maintenance", "Output": ""}


CHECKS = {
    "well": ([SERF, http("passing", "HTTP GET http://h:1/x: 200 OK Output: ")], False),
    "its agent is dead": ([DEAD_AGENT, http("passing", "HTTP GET http://h/x: 200 OK")], False),
    "maintenance": ([SERF, maintenance("_service_maintenance:x"), http("passing", "")], True),
    "its node's maintenance": ([maintenance("_node_maintenance"), SERF], True),
    "maintenance and a dead agent": ([DEAD_AGENT, maintenance("_service_maintenance:x")], True),
    "the engine hangs": (
        [SERF, http("critical", "HTTP GET http://h:1/x: 503 Service Unavailable Output: no")],
        True,
    ),
    "too many requests": ([SERF, http("warning", "HTTP GET http://h:1/x: 429 Output: ")], True),
    "the embedded registry's 503": (
        [SERF, http("critical", "HTTP GET http://h:1/x: 503 Output: ")],
        True,
    ),
    "refused": (
        [SERF, http("critical", 'Get "http://h:1/x": dial tcp h:1: connect: connection refused')],
        False,
    ),
    "no answer": (
        [SERF, http("critical", 'Get "http://h:1/x": context deadline exceeded (Client.Timeout)')],
        False,
    ),
    "the embedded registry's refusal": (
        [SERF, http("critical", "GET http://h:1/x: Cannot connect to host")],
        False,
    ),
    "TTL expired": ([SERF, ttl("critical", "TTL expired")], False),
    "TTL expired after a note": (
        [SERF, ttl("critical", "TTL expired (last output before timeout follows): fine")],
        False,
    ),
    "it reported a failure": ([SERF, ttl("critical", "engine hangs")], True),
    "never checked yet": ([SERF, http("critical", "")], False),
    "no checks": ([], False),
}


@pytest.mark.parametrize(("checks", "withdrawn"), CHECKS.values(), ids=CHECKS)
def test_which_checks_withdraw_an_entry(checks, withdrawn):
    [read] = decode(entry() | {"Checks": checks})
    assert (read.id, read.withdrawn) == (INSTANCE.id, withdrawn)


def test_an_entry_that_is_rejected_keeps_its_id():
    [other, read] = decode({"Service": 7}, entry(Address="not a host!"))
    assert (other.id, other.instance, other.withdrawn) == ("?", None, False)
    assert (read.id, read.instance) == (INSTANCE.id, None)
    assert "not a host!" in read.rejection
