"""Which web pages may use a server."""

from __future__ import annotations

import pytest

from fingerpost.registry.http.browser_guard import BrowserGuard

GUARD = BrowserGuard.of(["Registry.internal"])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:12481", "localhost", "LOCALHOST:1", "a.localhost", "[::1]:12481", "10.0.0.7",
        "registry.internal:12481", "registry.internal.",
    ],
)  # fmt: skip
def test_names_of_its_own(host: str) -> None:
    assert GUARD.check_host({"Host": host}) is None
    assert GUARD.check_origin({"Host": host, "Origin": f"http://{host}"}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:12481", "localhost.evil.example", "127.0.0.1.nip.io",
        "evillocalhost", "", "a@127.0.0.1", "127.0.0.1:x", "[::1", "0x7f.1", "x registry.internal",
    ],
)  # fmt: skip
def test_names_of_others(host: str) -> None:
    assert "--allow-host" in str(GUARD.check_host({"Host": host}))
    assert GUARD.check_origin({"Host": host, "Origin": f"http://{host}"}) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:12481"},
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_others(headers: dict[str, str]) -> None:
    assert "refused" in str(GUARD.check_origin({"Host": "127.0.0.1:12481"} | headers))


def test_who_is_no_browser() -> None:
    for headers in ({}, {"Host": "proxy.cluster.local"}, {"Sec-Fetch-Site": "none"}):
        assert GUARD.check_origin(headers) is None
    assert GUARD.check_host({}) is None
