"""When a worker signs its registration again."""

from __future__ import annotations

import msgspec
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.entry_signature import entry_verdict
from fingerpost.security.key_files import save_signing_key
from fingerpost.security.keys import SigningKey
from fingerpost.security.signing.statement import Flaw
from fingerpost.security.signing.trusted_keys import TrustedKeys
from fingerpost.worker.config import RegistrationConfig, WorkerConfig
from fingerpost.worker.signed_instances import SignedInstances, signed_instances

KEY = SigningKey.generate()
KEYS = TrustedKeys(KEY.public, {})
LIFE_S = 3000.0


def instance(service="flowers", **fields):
    return Instance(
        id=f"{service}-1",
        service=service,
        host="10.0.0.7",
        ports={"http": 8501},
        models=(ModelInfo(name=service, versions=("1",)),),
        **fields,
    )


class Clock:
    now = 10_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    save_signing_key(KEY, tmp_path / "key.json")
    return tmp_path / "key.json"


@pytest.fixture
def signing(path, clock):
    return SignedInstances(path, life_s=LIFE_S, wall=clock)


def test_an_unchanged_instance_is_signed_again_after_a_third_of_the_life(signing, clock):
    (first,) = signing.sign((instance(),))
    verdict = entry_verdict(first, KEYS)
    assert (verdict.flaw, verdict.expires) == (None, clock.now + LIFE_S)
    clock.now += LIFE_S / 3 - 1
    assert signing.sign((instance(),)) == (first,)  # nothing is sent to the registry
    clock.now += 1
    (second,) = signing.sign((instance(),))
    assert entry_verdict(second, KEYS).expires == clock.now + LIFE_S


def test_a_changed_instance_is_signed_at_once(signing):
    before = signing.sign((instance(), instance("birds")))
    after = signing.sign((instance(weight=2), instance("birds")))
    assert after[1] == before[1]
    assert entry_verdict(after[0], KEYS).flaw is None
    assert after[0].weight == 2


def test_a_replaced_key_signs_at_once(signing, path):
    signing.sign((instance(),))
    other = SigningKey.generate()
    save_signing_key(other, path, replace=True)
    (signed,) = signing.sign((instance(),))
    assert entry_verdict(signed, KEYS).flaw is Flaw.UNKNOWN_KEY
    assert entry_verdict(signed, TrustedKeys(other.public, {})).flaw is None


def test_the_settings_of_a_worker(path, tmp_path):
    assert signed_instances(WorkerConfig()) is None
    config = WorkerConfig(
        registration=RegistrationConfig(key=path),
        registry_config=RegistryConfig(wan_address="203.0.113.9"),
    )
    made = signed_instances(config)
    assert made is not None
    (signed,) = made.sign((instance(),))
    elsewhere = msgspec.structs.replace(signed, host="203.0.113.9")
    assert entry_verdict(elsewhere, KEYS).flaw is None
    with pytest.raises(ConfigurationError, match="cannot be read"):
        signed_instances(WorkerConfig(registration=RegistrationConfig(key=tmp_path / "none")))
    with pytest.raises(ConfigurationError, match="signature_life_s"):
        RegistrationConfig(signature_life_s=1)
