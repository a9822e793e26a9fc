from __future__ import annotations

import pytest

from fingerpost.client.foreign.errors import status_error
from fingerpost.client.routing import Outcome
from fingerpost.errors import (
    BadAnswer,
    BrokenImage,
    ImageError,
    ImageTooLarge,
    Overloaded,
    Unauthorized,
    UnknownPath,
    UnsupportedImage,
)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"code": 503, "type": "InternalServerException"}', Outcome.FAILED),
        (b'{"code": 503, "type": "ServiceUnavailableException"}', Outcome.OVERLOADED),
        (b"", Outcome.FAILED),
    ],
)
def test_503_without_a_time_to_come_back_is_load_only_of_a_full_queue(body, outcome):
    assert status_error(503, body, "10.0.0.7:9000", "/predict", None)[0] is outcome


@pytest.mark.parametrize(
    ("status", "outcome", "kind"),
    [
        (400, Outcome.ANSWERED, ImageError),
        (403, Outcome.ANSWERED, Unauthorized),
        (413, Outcome.ANSWERED, ImageTooLarge),
        (415, Outcome.ANSWERED, UnsupportedImage),
        (422, Outcome.ANSWERED, BrokenImage),
        (404, Outcome.STALE, UnknownPath),
        (429, Outcome.OVERLOADED, Overloaded),
        (503, Outcome.OVERLOADED, Overloaded),
        (302, Outcome.FAILED, BadAnswer),
        (500, Outcome.FAILED, BadAnswer),
        (507, Outcome.FAILED, BadAnswer),
    ],
)
def test_a_status(status, outcome, kind):
    found, error = status_error(status, b'{"error": "why"}', "10.0.0.7:9000", "/predict", 3.0)
    assert (found, type(error)) == (outcome, kind)
    assert str(error).startswith(f"10.0.0.7:9000: HTTP {status} at /predict:")
    assert "why" in str(error)
    assert error.retry_after_s == (3.0 if kind is Overloaded else None)
