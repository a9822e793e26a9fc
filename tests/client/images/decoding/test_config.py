"""Which images a worker refuses before it decodes them, as settings."""

from __future__ import annotations

import pytest

from fingerpost.client.images.decoding import ImageConfig
from fingerpost.errors import ConfigurationError


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_side"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_is_at_least_one(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is {value}: it must be 1 or more"):
        ImageConfig(**{name: value})


def test_settings_are_fixed_and_named() -> None:
    config = ImageConfig(max_side=10)
    with pytest.raises(AttributeError):
        config.max_side = 20  # type: ignore[misc]
    with pytest.raises(TypeError):
        ImageConfig(10)  # type: ignore[misc]
