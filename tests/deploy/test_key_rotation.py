"""Rotating a key: the order, and what happens when it is broken off."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.deploy.key_rotation import FileKeys, KeyRotation
from fingerpost.errors import ConfigurationError
from fingerpost.security.key_files import load_signing_key
from fingerpost.security.keys import SigningKey


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "lease.key"


@pytest.fixture
def published(tmp_path: Path) -> FileKeys:
    return FileKeys(tmp_path / "keys.json")


async def test_every_key_is_published_before_it_signs_and_while_it_counts(
    key: Path, published: FileKeys
) -> None:
    rotation = KeyRotation(key, published)
    first = await rotation.init()
    with pytest.raises(ConfigurationError, match="exists"):
        await rotation.init()
    assert (await published.read()).kids == (first.kid,)
    second = await rotation.publish()
    assert load_signing_key(key).kid == first.kid
    assert (await published.read()).kids == (first.kid, second.kid)
    assert (await rotation.sign()).kid == second.kid == load_signing_key(key).kid
    assert key.stat().st_mode & 0o777 == 0o600
    assert (await published.read()).kids == (first.kid, second.kid)
    assert await rotation.retire() == (first.kid,)
    assert (await published.read()).kids == (second.kid,)
    assert sorted(each.name for each in key.parent.iterdir()) == ["keys.json", "lease.key"]


async def test_a_rotation_that_was_broken_off_goes_on(key: Path, published: FileKeys) -> None:
    first = await KeyRotation(key, published).init()
    second = await KeyRotation(key, published).publish()
    assert KeyRotation(key, published).stage == "publish"
    assert (await KeyRotation(key, published).publish()).kid == second.kid
    await KeyRotation(key, published).sign()
    assert KeyRotation(key, published).stage == "retire"
    third = await KeyRotation(key, published).publish()  # another one before the first has ended
    await KeyRotation(key, published).sign()
    assert len(await published.read()) == 3
    assert set(await KeyRotation(key, published).retire()) == {first.kid, second.kid}
    assert (await published.read()).kids == (third.kid,)


async def test_keys_of_others_stay_published(key: Path, published: FileKeys) -> None:
    other = SigningKey.generate()
    await published.write(other.public)
    rotation = KeyRotation(key, published)
    await rotation.init()
    await rotation.publish()
    await rotation.sign()
    await rotation.retire()
    assert other.kid in await published.read()
    assert len(await published.read()) == 2


async def test_steps_out_of_order_are_refused(key: Path, published: FileKeys) -> None:
    rotation = KeyRotation(key, published)
    with pytest.raises(ConfigurationError, match="fingerpost keys init"):
        await rotation.publish()
    first = await rotation.init()
    with pytest.raises(ConfigurationError, match="--stage publish"):
        await rotation.sign()
    with pytest.raises(ConfigurationError, match="no key of"):
        await rotation.retire()
    await rotation.publish()
    await published.write(first.public)
    with pytest.raises(ConfigurationError, match="not published"):
        await rotation.sign()
    assert load_signing_key(key).kid == first.kid
