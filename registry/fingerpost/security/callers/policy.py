r"""The policy: whose keys, certificates and tokens there are, and what each caller may do; pure.

::

    [tenants.radiology]
    models = ["flowers"]             # without: all
    classes = ["interactive", "batch"]
    weight = 2
    images_per_s = 500

    [[callers]]
    name = "radiology-web"
    tenant = "radiology"
    keys = ["5e88..."]               # SHA-256; `fingerpost caller add` writes it

    [[callers]]
    name = "operators"
    role = "operate"
    certificates = ["spiffe://example.org/operators"]
    tokens = [{ issuer = "https://login.example.org", subject = "ops-*" }]

    [[issuers]]
    issuer = "https://login.example.org"
    audience = "fingerpost"

Each error names the file, the line of the table and what to write instead.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, NoReturn, TypeVar

import msgspec

from fingerpost.basics.config_file import decode_text, decode_toml
from fingerpost.errors import ConfigurationError
from fingerpost.security.caller import DEFAULT_TENANT, Caller, Rights
from fingerpost.security.callers.schema import (
    CallerTable,
    IssuerTable,
    PolicyTables,
    TenantTable,
)

__all__ = ["ASYMMETRIC", "MAX_POLICY_BYTES", "ROLES", "Entry", "Policy", "check_caller_name"]

MAX_POLICY_BYTES: Final = 16_000_000
"""The largest policy file: 50,000 callers with a key each."""

ROLES: Final = ("", "view", "operate", "admin")
"""Each may what those before it may."""

ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    | {"ES256", "ES384", "ES512", "Ed25519", "EdDSA"}
)
"""Algorithms whose public key verifies and cannot sign: never `none`, never HMAC."""

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", re.ASCII)
_MODEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_CLASS: Final = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_URL: Final = re.compile(r"https://[^\s/]+|http://(127\.0\.0\.1|localhost|\[::1\])[:/]")
_PATH: Final = re.compile(r"`\$\.(callers|issuers)\[(\d+)\]|`\$\.(tenants)\[")
_LIMITS: Final = ("images_per_s", "bytes_per_s", "max_in_flight", "max_body_bytes")


@dataclass(frozen=True, slots=True)
class Entry:
    """A caller, and whether it may ask at the moment."""

    caller: Caller
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Finds callers; each look-up takes the same time however many there are.

    Attributes:
        issuers: who makes tokens, by `iss`.
        tenants: the names of the tenants, `default` among them.
        entries: all callers, in the order of the file.
    """

    issuers: Mapping[str, IssuerTable] = field(default_factory=dict)
    tenants: frozenset[str] = frozenset({DEFAULT_TENANT})
    entries: tuple[Entry, ...] = ()
    _keys: dict[str, Entry] = field(default_factory=dict, repr=False)
    _certificates: dict[str, Entry] = field(default_factory=dict, repr=False)
    _tokens: dict[tuple[str, str], Entry] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, content: bytes, source: object) -> Policy:
        """Read a policy file.

        Args:
            content: its bytes.
            source: its path, for errors.

        Raises:
            ConfigurationError: it is not UTF-8, not TOML, or says what cannot be.
        """
        text = decode_text(content, source)
        try:
            tables = decode_toml(content, PolicyTables, source)
        except ConfigurationError as error:
            raise ConfigurationError(_with_line(error.message, text)) from error
        return _Reader(text, source).policy(tables)

    def by_key(self, hashed: str) -> Entry | None:
        """The caller of an API key, by its hash."""
        return self._keys.get(hashed)

    def by_certificate(self, names: Iterable[str]) -> Entry | None:
        """The caller of a verified client certificate, by its SPIFFE ids and its subject."""
        for name in names:
            if (entry := _lookup(self._certificates, name, "/")) is not None:
                return entry
        return None

    def by_token(self, issuer: str, subject: str) -> Entry | None:
        """The caller of a verified token, by `iss` and `sub`."""
        exact = self._tokens.get((issuer, subject))
        if exact is not None:
            return exact
        for length in range(len(subject), -1, -1):
            if entry := self._tokens.get((issuer, f"{subject[:length]}*")):
                return entry
        return None


def check_caller_name(name: str) -> str:
    """A caller's or tenant's name as it is; raises `ConfigurationError` where it is not valid."""
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name[:200]!r} is not a valid name of a caller or tenant: use 1 to 128 letters, "
            "digits, '.', '_', '-', '@'"
        )
    return name


def _lookup(entries: dict[str, Entry], name: str, separator: str) -> Entry | None:
    """By the whole name, else by the longest beginning that an entry with `/*` has."""
    found = entries.get(name)
    while found is None and (at := name.rfind(separator)) > 0:
        name = name[:at]
        found = entries.get(f"{name}{separator}*")
    return found


class _Reader:
    """Checks what the tables say, and names the line of the one that is wrong."""

    def __init__(self, text: str, source: object) -> None:
        self._text = text
        self._source = source
        self._entries: list[Entry] = []
        self._keys: dict[str, Entry] = {}
        self._certificates: dict[str, Entry] = {}
        self._tokens: dict[tuple[str, str], Entry] = {}

    def policy(self, tables: PolicyTables) -> Policy:
        rights = {DEFAULT_TENANT: Rights()}
        for name, tenant in tables.tenants.items():
            rights[name] = self._rights(name, tenant)
        issuers = {}
        for index, issuer in enumerate(tables.issuers):
            if issuer.issuer in issuers:
                self._fail("issuers", index, f"issuer {issuer.issuer!r} stands twice: keep one")
            issuers[issuer.issuer] = self._issuer(index, issuer)
        names: set[str] = set()
        for index, each in enumerate(tables.callers):
            self._caller(index, each, rights, issuers)
            if each.name in names:
                self._fail("callers", index, f"name {each.name!r} stands twice: choose another")
            names.add(each.name)
        return Policy(
            issuers,
            frozenset(rights),
            tuple(self._entries),
            self._keys,
            self._certificates,
            self._tokens,
        )

    def _rights(self, name: str, given: TenantTable) -> Rights:
        where = f"tenants.{name}"
        try:
            check_caller_name(name)
        except ConfigurationError as error:
            self._fail(where, None, error.message)
        if not 0 < given.weight < inf:
            self._fail(where, None, f"weight = {given.weight}: give a number above 0")
        for limit in _LIMITS:
            value = getattr(given, limit)
            if value is not None and not 0 < value < inf:
                self._fail(where, None, f"{limit} = {value}: give more than 0, or leave it out")
        self._check_names(where, None, "models", given.models, _MODEL)
        self._check_names(where, None, "classes", given.classes, _CLASS)
        if given.classes == ():
            self._fail(where, None, "classes = []: name at least one, or leave it out for all")
        return Rights(
            models=given.models,
            classes=given.classes,
            weight=given.weight,
            images_per_s=given.images_per_s,
            bytes_per_s=given.bytes_per_s,
            max_in_flight=given.max_in_flight,
            max_body_bytes=given.max_body_bytes,
        )

    def _issuer(self, index: int, given: IssuerTable) -> IssuerTable:
        for name in ("issuer", "audience"):
            if not 0 < len(getattr(given, name)) <= 1024:
                self._fail("issuers", index, f"{name} is empty or too long: give it as tokens do")
        if given.jwks_url is not None and given.jwks_file is not None:
            self._fail("issuers", index, "jwks_url and jwks_file exclude each other: give one")
        url = given.issuer if given.jwks_url is None else given.jwks_url
        if given.jwks_file is None and _URL.match(url) is None:
            self._fail(
                "issuers",
                index,
                f'keys cannot be fetched from {url[:200]!r}: give jwks_url = "https://...", or '
                "jwks_file",
            )
        for algorithm in given.algorithms:
            if algorithm not in ASYMMETRIC:
                self._fail(
                    "issuers",
                    index,
                    f"algorithm {algorithm[:40]!r} is not accepted: use some of "
                    f"{', '.join(sorted(ASYMMETRIC))}",
                )
        if not given.algorithms:
            self._fail("issuers", index, "algorithms = []: name at least one, or leave it out")
        return given

    def _caller(
        self,
        index: int,
        given: CallerTable,
        rights: dict[str, Rights],
        issuers: dict[str, IssuerTable],
    ) -> None:
        try:
            check_caller_name(given.name)
        except ConfigurationError as error:
            self._fail("callers", index, error.message)
        if given.tenant not in rights:
            self._fail(
                "callers",
                index,
                f"{given.name}: there is no tenant {given.tenant[:200]!r}: add "
                f"[tenants.{given.tenant[:100]}], or use one of {', '.join(sorted(rights)[:10])}",
            )
        self._check_names("callers", index, "models", given.models, _MODEL)
        of_tenant = rights[given.tenant]
        models = _narrowed(of_tenant.models, given.models)
        entry = Entry(
            Caller(
                identity=given.name,
                tenant=given.tenant,
                role=given.role,
                rights=Rights(
                    models=models,
                    classes=of_tenant.classes,
                    weight=of_tenant.weight,
                    images_per_s=of_tenant.images_per_s,
                    bytes_per_s=of_tenant.bytes_per_s,
                    max_in_flight=of_tenant.max_in_flight,
                    max_body_bytes=of_tenant.max_body_bytes,
                ),
            ),
            given.disabled,
        )
        self._entries.append(entry)
        for key in given.keys:
            if _HASH.fullmatch(key) is None:
                self._fail(
                    "callers",
                    index,
                    f"{given.name}: a key must be given as its SHA-256, 64 hexadecimal digits in "
                    "lower case, never as the key itself: `fingerpost caller add` writes it",
                )
            self._add(self._keys, key, entry, index, "the same key")
        for name in given.certificates:
            if not 0 < len(name) <= 2048 or ("*" in name and not name.endswith("/*")):
                self._fail(
                    "callers",
                    index,
                    f"{given.name}: certificate {name[:200]!r}: give a SPIFFE id, which may end "
                    "with /*, or a subject such as CN=name",
                )
            self._add(self._certificates, name, entry, index, f"certificate {name[:200]!r}")
        for token in given.tokens:
            if token.issuer not in issuers:
                self._fail(
                    "callers",
                    index,
                    f"{given.name}: there is no issuer {token.issuer[:200]!r}: add it as "
                    "[[issuers]], or correct it",
                )
            if not token.subject or "*" in token.subject[:-1]:
                self._fail(
                    "callers",
                    index,
                    f"{given.name}: subject {token.subject[:200]!r}: give `sub` of the tokens; * "
                    "may stand at its end only",
                )
            subject = f"subject {token.subject[:200]!r}"
            self._add(self._tokens, (token.issuer, token.subject), entry, index, subject)

    def _add(self, entries: dict[T, Entry], key: T, entry: Entry, index: int, what: str) -> None:
        other = entries.get(key)
        if other is not None:
            self._fail(
                "callers",
                index,
                f"{entry.caller.identity} and {other.caller.identity} have {what}: each must name "
                "one caller",
            )
        entries[key] = entry

    def _check_names(
        self,
        table: str,
        index: int | None,
        name: str,
        given: tuple[str, ...] | None,
        pattern: re.Pattern[str],
    ) -> None:
        for each in given or ():
            if pattern.fullmatch(each) is None:
                self._fail(table, index, f"{name}: {each[:200]!r} is not a valid name")

    def _fail(self, table: str, index: int | None, problem: str) -> NoReturn:
        line = _line(self._text, table, index)
        where = f"[{table}]" if index is None else f"[[{table}]] number {index + 1}"
        at = f", line {line}" if line else ""
        raise ConfigurationError(f"{self._source}{at}, {where}: {problem}")


def _narrowed(
    tenant: tuple[str, ...] | None, caller: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """The models that both allow; None is all."""
    if tenant is None or caller is None:
        return caller if tenant is None else tenant
    return tuple(each for each in caller if each in tenant)


def _line(text: str, table: str, index: int | None) -> int:
    """The line of a table's header, or 0 where it is written in another way."""
    if index is None:
        name = re.escape(table.partition(".")[2])
        header = re.compile(rf"^[ \t]*\[[ \t]*tenants\.[\"']?{name}[\"']?[ \t]*\]", re.MULTILINE)
    else:
        header = re.compile(rf"^[ \t]*\[\[[ \t]*{table}[ \t]*\]\]", re.MULTILINE)
    for number, found in enumerate(header.finditer(text)):
        if number == (index or 0):
            return text.count("\n", 0, found.start()) + 1
    return 0


def _with_line(message: str, text: str) -> str:
    """The decoder's message, with the line of the table that it names as `$.callers[3]`.

    It names no tenant: `$.tenants[...]`.
    """
    found = _PATH.search(message)
    if found is None:
        return message
    if found[1] is None:
        for name, table in tomllib.loads(text)["tenants"].items():
            try:
                msgspec.convert(table, TenantTable)
            except msgspec.ValidationError:
                line = _line(text, f"tenants.{name}", None)
                return f"{message}, in [tenants.{name}]" + (f", line {line}" if line else "")
        return message
    index = int(found[2])
    line = _line(text, found[1], index)
    return f"{message}, in [[{found[1]}]] number {index + 1}" + (f", line {line}" if line else "")
