"""How errors are written: each protocol's routes have a form of their own.

Handlers raise, routes write. For a path without a route (404, 405) the form is that of the protocol
whose paths begin alike, so that the protocol's clients can read the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError
    from fingerpost.registry.http.app import ErrorForm

__all__ = ["ErrorForms", "message_error", "typed_error"]


def typed_error(error: FingerpostError) -> bytes:
    """`{"error": {"code", "message", "retryable"}}`: the form of Fingerpost's own protocols."""
    return error.to_json()


def message_error(error: FingerpostError) -> bytes:
    """`{"error": "message"}`: the form of TensorFlow Serving and the Open Inference Protocol."""
    return msgspec.json.encode({"error": error.message})


class ErrorForms:
    """The forms of errors, by the path of a request."""

    def __init__(self) -> None:
        self._forms: dict[str, ErrorForm] = {}

    def add(self, prefix: str, form: ErrorForm) -> None:
        """Write the errors of a path and of all paths below it in this form."""
        self._forms[prefix] = form

    def of(self, path: str) -> ErrorForm:
        """The form for the longest known prefix of a path; `typed_error` where there is none."""
        while path:
            form = self._forms.get(path)
            if form is not None:
                return form
            path = path.rpartition("/")[0]
        return typed_error
