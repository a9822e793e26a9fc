from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import ConfigurationError
from fingerpost.security.keys import SigningKey
from fingerpost.security.signing.statement import Flaw, Statement, sign_statement
from fingerpost.security.signing.trusted_keys import TrustedKeys, TrustedKeysFile

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
DATA = b"what is believed"


def trusted(*keys, **services):
    document = {"keys": [json.loads(key.public.encode())["keys"][0] for key in keys]}
    for each in document["keys"]:
        if each["kid"] in services:
            each["services"] = services[each["kid"]]
    return TrustedKeys.decode(json.dumps(document).encode(), "keys.json")


def flaw(text, keys, *, purpose="registration", data=DATA, name="flowers"):
    statement = Statement.parse(text)
    assert statement is not None
    return statement.verdict(keys, purpose=purpose, data=data, name=name).flaw


def test_a_signature_is_believed_of_its_key_purpose_data_and_end_only():
    text = sign_statement(KEY, purpose="registration", data=DATA, expires=1000)
    assert len(text) < 160
    keys = trusted(KEY, OTHER)
    assert flaw(text, keys) is None
    assert flaw(text, trusted(OTHER)) is Flaw.UNKNOWN_KEY
    assert flaw(text, keys, data=DATA + b"!") is Flaw.WRONG_SIGNATURE
    assert flaw(text, keys, purpose="model") is Flaw.WRONG_SIGNATURE
    assert flaw(text.replace(".1000.", ".9000."), keys) is Flaw.WRONG_SIGNATURE
    assert flaw(text.replace(KEY.kid, OTHER.kid), keys) is Flaw.WRONG_SIGNATURE


def test_a_key_signs_for_its_services_only():
    text = sign_statement(KEY, purpose="registration", data=DATA)
    keys = trusted(KEY, **{KEY.kid: ["flowers", "team-a-*"]})
    assert flaw(text, keys) is None
    assert flaw(text, keys, name="team-a-birds") is None
    assert flaw(text, keys, name="birds") is Flaw.NOT_ALLOWED
    assert flaw(text, trusted(KEY, **{KEY.kid: []})) is Flaw.NOT_ALLOWED


@given(st.text(max_size=300))
def test_no_text_raises(text):
    statement = Statement.parse(text)
    assert statement is None or text.startswith(statement.kid)


@given(st.integers(0, 150), st.integers(1, 255))
def test_no_changed_signature_is_believed(at, change):
    text = sign_statement(KEY, purpose="registration", data=DATA, expires=1000)
    at %= len(text)
    changed = text[:at] + chr(ord(text[at]) ^ change) + text[at + 1 :]
    statement = Statement.parse(changed)
    # The last letter has bits that base64 does not use: what is decoded is the same signature.
    if statement is not None and statement != Statement.parse(text):
        verdict = statement.verdict(trusted(KEY), purpose="registration", data=DATA, name="flowers")
        assert verdict.flaw is not None


@pytest.mark.parametrize("services", ["flowers", [1], {"a": 1}, None])
def test_services_that_are_not_a_list_of_names(services):
    with pytest.raises(ConfigurationError, match=r"keys\.json: services of the key .* use a list"):
        trusted(KEY, **{KEY.kid: services})


def test_a_file_of_keys_is_read_again_and_a_broken_one_keeps_the_last(tmp_path, caplog):
    path = tmp_path / "keys.json"
    path.write_bytes(KEY.public.encode())
    file = TrustedKeysFile(path)
    first = file.current()
    assert KEY.kid in first
    assert file.current() is first
    path.write_bytes(KEY.public.having(OTHER.public).encode())
    assert OTHER.kid in file.current()
    path.write_bytes(b"{")
    assert OTHER.kid in file.current()
    assert "the keys read before stay in use" in caplog.text
    path.write_bytes(OTHER.public.encode() + b"\n")
    assert KEY.kid not in file.current()


def test_a_file_without_a_key_is_an_error(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    with pytest.raises(ConfigurationError, match="no public key"):
        TrustedKeysFile(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        TrustedKeysFile(tmp_path / "missing")
