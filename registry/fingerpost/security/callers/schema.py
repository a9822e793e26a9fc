"""The tables of a policy file, as TOML has them: names and kinds, before their sense is checked."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["CallerTable", "IssuerTable", "PolicyTables", "TenantTable", "TokenTable"]


class TenantTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tenants.NAME]`: what it may ask; see `Rights`."""

    models: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    weight: float = 1.0
    images_per_s: float | None = None
    bytes_per_s: float | None = None
    max_in_flight: int | None = None
    max_body_bytes: int | None = None


class TokenTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The subject of an issuer's tokens; one that ends with `*` is any that begins so."""

    issuer: str
    subject: str


class CallerTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[callers]]`: who it is, and for which tenant it asks.

    Attributes:
        keys: SHA-256 of its API keys, in hexadecimal digits.
        certificates: SPIFFE ids, or subjects (`CN=...`), of its client certificates; a SPIFFE id
            that ends with `/*` is any that begins so.
        tokens: subjects of its tokens.
        models: fewer models than the tenant has.
    """

    name: str
    tenant: str = "default"
    role: Literal["", "view", "operate", "admin"] = ""
    disabled: bool = False
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    tokens: tuple[TokenTable, ...] = ()
    models: tuple[str, ...] | None = None


class IssuerTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[issuers]]`: who makes tokens, and where its public keys are.

    Attributes:
        issuer: `iss` of its tokens, exactly.
        audience: `aud` of its tokens must have this.
        jwks_url: where its keys are; without this and `jwks_file`, its discovery document says it.
        jwks_file: a file with its keys instead.
        ca_file: the CA of that URL, instead of the system's.
        token_file: a file with a bearer token for that URL, as the Kubernetes API server wants.
        algorithms: signatures that are accepted; only asymmetric ones.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: str | None = None
    ca_file: str | None = None
    token_file: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256", "Ed25519", "EdDSA")


class PolicyTables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    tenants: dict[str, TenantTable] = {}
    callers: tuple[CallerTable, ...] = ()
    issuers: tuple[IssuerTable, ...] = ()
