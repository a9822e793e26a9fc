"""Messages of the Python API name options on the command line."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fingerpost.client import ClientConfig
from fingerpost.deploy.setting_names import with_options

FIELDS = [each.name for each in fields(ClientConfig)]


@pytest.mark.parametrize("name", FIELDS)
def test_no_setting_of_the_python_api_is_left(name: str) -> None:
    shown = with_options(f"no answer for 2 s ({name}); 3 attempts")
    option = {"timeout_s": " (--deadline)", "wait_for_ready_s": " (--wait-for-ready)"}.get(name, "")
    assert shown == f"no answer for 2 s{option}; 3 attempts"


def test_all_else_stays() -> None:
    text = "model (timeout) of timeout_s (x_s) is (relayed)"
    assert with_options(text) == text
