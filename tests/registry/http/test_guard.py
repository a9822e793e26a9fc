"""How many connections a client may have: decisions only."""

from __future__ import annotations

from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.http.guard import ConnectionGuard


def test_all_addresses_of_an_ipv6_network_have_the_connections_of_one_client() -> None:
    guard = ConnectionGuard(ConnectionConfig(max_connections=100, max_per_client=4))
    attackers = [f"2001:db8:0:1::{number:x}" for number in range(50)]
    entered = [address for address in attackers if guard.enter(address)]
    assert entered == attackers[:4]
    for other in ("2001:db8:0:2::1", "192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1"):
        assert guard.enter(other)
    guard.leave(attackers[0])
    assert guard.enter(attackers[9])
    assert not guard.enter(attackers[8])
    for address in (*attackers[1:4], attackers[9]):
        guard.leave(address)
    assert guard.open == 4
    assert set(guard._clients) == {"2001:db8:0:2::/64", "192.0.2.1", "192.0.2.2"}
