"""How errors are written: by the protocol of the route, or of the paths that begin alike."""

from __future__ import annotations

import json

import aiohttp
import pytest

from fingerpost.errors import UnknownModel
from fingerpost.worker.serving.errors import ErrorForms, message_error, typed_error
from tests.support.rig import serving

ERROR = UnknownModel("no such model")


def test_the_two_forms() -> None:
    assert json.loads(message_error(ERROR)) == {"error": "no such model"}
    assert json.loads(typed_error(ERROR)) == {
        "error": {"code": "unknown_model", "message": "no such model", "retryable": ERROR.retryable}
    }


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v2", message_error),
        ("/v2/", message_error),
        ("/v2//models", message_error),
        ("/v2/models/a/infer", message_error),
        ("/v2/typed", typed_error),
        ("/v2/typed/below/it", typed_error),
        ("/v2/typed-not", message_error),
        ("/v2x", typed_error),
        ("/v2%2Fmodels", typed_error),
        ("/v1/models", typed_error),
        ("/", typed_error),
        ("", typed_error),
    ],
)
def test_the_longest_prefix_decides(path: str, form: object) -> None:
    forms = ErrorForms()
    forms.add("/v2", message_error)
    forms.add("/v2/typed", typed_error)
    assert forms.of(path) is form


# Requests that no handler of the protocol answers, or only its middlewares: how the error looks.
UNANSWERED = {
    ("GET", "/"): (405, dict),
    ("GET", "/nothing"): (404, dict),
    ("GET", "/v1/classify/colours"): (405, dict),
    ("POST", "/v1/classify"): (404, dict),
    ("GET", "/v1/stream/colours"): (405, dict),
    ("POST", "/v1/admin/models"): (404, dict),  # without a token there is none
    ("GET", "/v1/models"): (404, str),
    ("GET", "/v1/models/flowers"): (404, str),
    ("PUT", "/v1/models/colours"): (405, str),
    ("GET", "/v1/models/colours/versions/x"): (400, str),
    ("GET", "/v1/models/colours:predict"): (400, str),
    ("GET", "/v2/nothing"): (404, str),
    ("DELETE", "/v2"): (405, str),
    ("GET", "/v2/models/flowers"): (404, str),
    ("GET", "/v2/models/colours/stats"): (404, str),
    ("POST", "/v2/repository/models/colours/load"): (404, str),
}


@pytest.mark.parametrize("case", UNANSWERED, ids=" ".join)
async def test_errors_outside_of_handlers_have_the_form_of_the_protocol(
    case: tuple[str, str],
) -> None:
    async with (
        serving() as rig,
        aiohttp.ClientSession(rig.url) as http,
        http.request(*case) as response,
    ):
        error = (await response.json())["error"]
        assert (response.status, type(error)) == UNANSWERED[case]
        assert (response.status == 405) == ("Allow" in response.headers)
        assert "endpoint-load-metrics" in response.headers
