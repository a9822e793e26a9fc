"""The policy file: what it means, and what is said of one that is wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.security.caller import Caller, Rights
from fingerpost.security.callers.api_keys import hash_key, is_key, make_key
from fingerpost.security.callers.policy import Policy
from fingerpost.security.callers.policy_file import PolicyFile, read_policy

KEY = make_key()
GOOD = f"""
[tenants.radiology]
models = ["flowers", "digits"]
classes = ["interactive", "batch"]
weight = 2
images_per_s = 500
max_in_flight = 64

[[issuers]]
issuer = "https://login.example.org"
audience = "fingerpost"

[[callers]]
name = "web"
tenant = "radiology"
keys = ["{hash_key(KEY)}"]
models = ["flowers", "cats"]

[[callers]]
name = "operators"
role = "operate"
disabled = true
certificates = ["spiffe://example.org/ops/*", "CN=laptop"]
tokens = [
  {{ issuer = "https://login.example.org", subject = "ops-*" }},
  {{ issuer = "https://login.example.org", subject = "ops-anna" }},
]

[[callers]]
name = "anna"
tokens = [{{ issuer = "https://login.example.org", subject = "anna" }}]
"""


def parse(text: str | bytes) -> Policy:
    return Policy.parse(text if isinstance(text, bytes) else text.encode(), "callers.toml")


def test_what_a_good_file_means() -> None:
    policy = parse(GOOD)
    entry = policy.by_key(hash_key(KEY))
    assert entry is not None
    assert entry.caller == Caller(
        identity="web",
        tenant="radiology",
        rights=Rights(
            models=("flowers",),  # those that the tenant has too
            classes=("interactive", "batch"),
            weight=2.0,
            images_per_s=500.0,
            max_in_flight=64,
        ),
    )
    operators = policy.by_certificate(["spiffe://example.org/ops/night/1"])
    assert operators is not None
    assert (operators.caller.role, operators.disabled) == ("operate", True)
    assert policy.by_certificate(["spiffe://example.org/other", "CN=laptop"]) is operators
    assert policy.by_token("https://login.example.org", "ops-ben") is operators
    anna = policy.by_token("https://login.example.org", "anna")
    assert anna is not None
    assert anna.caller == Caller(identity="anna")
    assert [each.caller.identity for each in policy.entries] == ["web", "operators", "anna"]


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["spiffe://example.org/ops"],
        ["spiffe://example.org/opsx/1"],
        ["spiffe://example.com/ops/1"],
        ["CN=laptop2"],
        ["*"],
        [""],
    ],
)
def test_other_certificates_are_nobodys(names: list[str]) -> None:
    assert parse(GOOD).by_certificate(names) is None


@pytest.mark.parametrize(
    ("issuer", "subject"),
    [
        ("https://login.example.org", "ann"),
        ("https://login.example.org", "anna2"),
        ("https://login.example.org", "ops"),
        ("https://login.example.org", ""),
        ("https://other.example.org", "anna"),
    ],
)
def test_other_subjects_are_nobodys(issuer: str, subject: str) -> None:
    assert parse(GOOD).by_token(issuer, subject) is None


HASH = hash_key("x")
BAD = {
    "unknown tenant": (
        '[[callers]]\nname = "a"\n\n[[callers]]\nname = "b"\ntenant = "sales"\n',
        r"callers.toml, line 4, \[\[callers\]\] number 2: b: there is no tenant 'sales': add "
        r"\[tenants.sales\]",
    ),
    "unknown role": (
        '[[callers]]\nname = "a"\n\n[[callers]]\nname = "b"\nrole = "root"\n',
        r"Invalid enum value 'root'.*number 2, line 4",
    ),
    "negative rate": (
        "\n[tenants.a]\nimages_per_s = -1\n",
        r"line 2, \[tenants.a\]: images_per_s = -1.0: give more than 0",
    ),
    "infinite rate": ("[tenants.a]\nbytes_per_s = inf\n", "bytes_per_s = inf: give more than 0"),
    "no rate": ("[tenants.a]\nimages_per_s = nan\n", "images_per_s = nan: give more than 0"),
    "weight of 0": ("[tenants.a]\nweight = 0\n", "weight = 0.0: give a number above 0"),
    "text as rate": ('[tenants.a]\nimages_per_s = "fast"\n', "Expected `float"),
    "part of an image": ("[tenants.a]\nmax_in_flight = 0.5\n", "Expected `int"),
    "no class": ("[tenants.a]\nclasses = []\n", "name at least one"),
    "class": ('[tenants.a]\nclasses = ["Batch"]\n', "'Batch' is not a valid name"),
    "model": ('[tenants.a]\nmodels = ["../x"]\n', "'../x' is not a valid name"),
    "tenant's name": ('[tenants."a b"]\n', "'a b' is not a valid name of a caller or tenant"),
    "caller's name": ('[[callers]]\nname = ""\n', "'' is not a valid name of a caller"),
    "unknown key": ('[[callers]]\nname = "a"\nrate = 1\n', "unknown field `rate`.*line 1"),
    "unknown table": ("[[caller]]\n", "unknown field `caller`"),
    "the key itself": (
        f'[[callers]]\nname = "a"\nkeys = ["{KEY}"]\n',
        "must be given as its SHA-256, 64 hexadecimal digits",
    ),
    "one key, two callers": (
        f'[[callers]]\nname = "a"\nkeys = ["{HASH}"]\n[[callers]]\nname = "b"\nkeys = ["{HASH}"]\n',
        "b and a have the same key",
    ),
    "one name twice": ('[[callers]]\nname = "a"\n[[callers]]\nname = "a"\n', "'a' stands twice"),
    "unknown issuer": (
        '[[callers]]\nname = "a"\ntokens = [{issuer = "https://x", subject = "a"}]\n',
        "there is no issuer 'https://x'",
    ),
    "star in the middle": (
        '[[issuers]]\nissuer = "https://x.org"\naudience = "f"\n[[callers]]\nname = "a"\n'
        'tokens = [{issuer = "https://x.org", subject = "a*b"}]\n',
        r"\* may stand at its end only",
    ),
    "star in a certificate": (
        '[[callers]]\nname = "a"\ncertificates = ["spiffe://*/x"]\n',
        "which may end with /",
    ),
    "HS256": (
        '[[issuers]]\nissuer = "https://x.org"\naudience = "f"\nalgorithms = ["HS256"]\n',
        r"line 1, \[\[issuers\]\] number 1: algorithm 'HS256' is not accepted",
    ),
    "none": (
        '[[issuers]]\nissuer = "https://x.org"\naudience = "f"\nalgorithms = ["none"]\n',
        "algorithm 'none' is not accepted",
    ),
    "keys in clear": (
        '[[issuers]]\nissuer = "x"\naudience = "f"\njwks_url = "http://login.example.org/keys"\n',
        "keys cannot be fetched from 'http://login.example.org/keys'",
    ),
    "a file as URL": (
        '[[issuers]]\nissuer = "x"\naudience = "f"\njwks_url = "file:///etc/passwd"\n',
        "keys cannot be fetched from",
    ),
    "no audience": ('[[issuers]]\nissuer = "https://x.org"\naudience = ""\n', "audience is empty"),
    "a tenant's models without brackets": (
        '[tenants.a]\nweight = 2\n[tenants.b]\nmodels = "cats"\n',
        r"got `str`.*in \[tenants.b\], line 3",
    ),
    "a tenant's key that is not known": (
        "[tenants.a]\nimages_per_sec = 2\n",
        r"unknown field `images_per_sec`.*in \[tenants.a\], line 1",
    ),
    "tenants that are no tables": ("tenants = 3\n", "callers.toml: Expected `object`"),
    "a tenant that is no table": ("tenants = {a = 3}\n", r"in \[tenants.a\]"),
    "not TOML": ("[[callers]\n", "line 1"),
    "not UTF-8": (b'[[callers]]\nname = "\xff"\n', "byte 0xff at offset 20, in line 2"),
    "nested": ("a = " + "[" * 5000, "nested too deep|callers.toml"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_named_with_its_line_and_the_remedy(text: str | bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        parse(text)
    assert "callers.toml" in caught.value.message
    assert KEY not in caught.value.message


def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * 16_000_001)
    for name, says in (
        ("pipe", "is a named pipe, not a regular file"),
        ("large", "over the limit of 16,000,000"),
        (".", "is a folder"),
        ("missing", "there is no file .*fingerpost caller add"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            read_policy(tmp_path / name)


def test_a_file_that_everybody_may_change_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    path.write_text(GOOD)
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match=r"\(mode 0666\).*run chmod o-w"):
        read_policy(path)
    path.chmod(0o664)
    assert len(read_policy(path).entries) == 3


def test_10_000_keys_cost_no_scan() -> None:
    hashes = [hash_key(str(number)) for number in range(10_000)]
    lines = [f'[[callers]]\nname = "c{n}"\nkeys = ["{each}"]\n' for n, each in enumerate(hashes)]
    policy = parse("".join(lines))
    last = policy.by_key(hashes[-1])
    assert last is not None
    assert last.caller.identity == "c9999"
    started = time.perf_counter()
    for _ in range(1000):
        policy.by_key(hashes[-1])
    assert (time.perf_counter() - started) / 1000 < 100e-6  # a scan would take a millisecond


def test_keys_are_long_and_random() -> None:
    keys = {make_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(is_key(key) and len(key) == 47 for key in keys)


def test_a_broken_file_keeps_the_last_good_policy(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    path.write_text(GOOD)
    file = PolicyFile(path)
    assert not file.changed()
    path.write_text("[[callers]]\nname = 3\n")
    assert file.changed()
    assert not file.read_again()
    assert "Expected `str`" in file.problem
    assert file.policy.by_key(hash_key(KEY)) is not None
    assert not file.changed()  # until it changes once more
    path.unlink()
    assert file.changed()
    assert not file.read_again()
    assert "there is no file" in file.problem
    path.write_text(GOOD.replace(hash_key(KEY), HASH))
    assert file.read_again()
    assert (file.problem, file.reads, file.failures) == ("", 2, 2)
    assert file.policy.by_key(hash_key(KEY)) is None


def test_a_policy_without_callers_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    path.write_text("")
    with pytest.raises(ConfigurationError, match=r"has no \[\[callers\]\]"):
        PolicyFile(path)
    path.write_text(GOOD)
    file = PolicyFile(path)
    path.write_text("")  # as an editor does before it writes
    assert file.changed()
    assert not file.read_again()
    assert file.policy.by_key(hash_key(KEY)) is not None


def test_rights_of_the_file_that_are_put_right_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    path.write_text(GOOD)
    path.chmod(0o600)
    file = PolicyFile(path)
    path.chmod(0o606)
    assert file.changed()
    assert not file.read_again()
    assert f"run chmod o-w {path}" in file.problem
    path.chmod(0o600)
    assert file.changed()
    assert file.read_again()
    assert file.problem == ""
