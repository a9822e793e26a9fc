"""Which web pages may use a server, by the headers that a browser judges."""

from __future__ import annotations

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry.http.cors_config import CorsConfig

APP = "https://app.example"


@pytest.mark.parametrize(
    "origin",
    [APP, "http://localhost:3000", "http://[::1]:8080", "chrome-extension://abcdef", "*"],
)
def test_origins_as_browsers_write_them(origin: str) -> None:
    assert CorsConfig(allow_origins=(origin,)).allows({"Origin": APP if origin == "*" else origin})


@pytest.mark.parametrize(
    "origin",
    ["", "app.example", f"{APP}/", f"{APP}/page", "HTTPS://APP.EXAMPLE", "null", f"{APP}, {APP}",
     "https://*.example", f"{APP}\r\nSet-Cookie: a"],
)  # fmt: skip
def test_what_is_no_origin_is_named_with_the_remedy(origin: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not an origin.*https://app\.example"):
        CorsConfig(allow_origins=(APP, origin))


@pytest.mark.parametrize("origin", [f"{APP}.evil", "https://evil", "http://app.example", "null"])
def test_other_pages_may_not(origin: str) -> None:
    assert not CorsConfig(allow_origins=(APP,)).allows({"Origin": origin})


def test_none_may_by_default_and_a_program_is_no_page() -> None:
    assert not CorsConfig().allows({"Origin": APP})
    assert not CorsConfig(allow_origins=("*",)).allows({})
