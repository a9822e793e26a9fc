"""What every registry must do with documents: run against each of them."""

from __future__ import annotations

import functools

import pytest
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError, InvalidName


async def test_a_document_is_read_as_it_was_published(registry, service, url, connect):
    assert await registry.document(service) is None
    for content in (b'{"keys": []}', b"\xff" * 65_536, b""):
        await registry.publish(service, content)
        assert await registry.document(service) == content
        await until(functools.partial(_reads, connect(url), service, content))
    assert service not in (await registry.catalog()).services
    with pytest.raises(ConfigurationError, match="over the limit"):
        await registry.publish(service, b"x" * 65_537)
    for name in ("../secret", "", "UPPER", "a/b"):
        with pytest.raises(InvalidName):
            await registry.document(name)
        with pytest.raises(InvalidName):
            await registry.publish(name, b"")


async def _reads(registry, name, content):
    return await registry.document(name) == content
