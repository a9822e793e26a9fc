"""The first image of a sidecar: a server that loads its model meanwhile is waited for."""

from __future__ import annotations

from fingerpost.client import ClientConfig
from fingerpost.deploy.sidecar.health import first_image_config


def test_the_first_image_is_not_given_up_before_its_deadline() -> None:
    config = first_image_config()
    assert config.response_timeout_s >= config.timeout_s >= 60
    assert config.response_timeout_s > ClientConfig().response_timeout_s
