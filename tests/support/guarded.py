"""A proxy that knows its callers, with two models, and what it takes to ask it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import ModelInfo, open_registry
from fingerpost.registry.access import CallersConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.callers.api_keys import hash_key, make_key
from tests.proxy.world import World
from tests.support.waiting import until

__all__ = ["ALL", "OFF", "ONE", "OPS", "POLICY", "Guarded", "guarded_proxy"]

# API keys: of a caller that may all, of one that may use `digits`, of one with a role, of one that
# is disabled.
ALL, ONE, OPS, OFF = (make_key() for _ in range(4))
POLICY = f"""
[tenants.shop]
models = ["digits"]

[[callers]]
name = "all"
keys = ["{hash_key(ALL)}"]

[[callers]]
name = "one"
tenant = "shop"
keys = ["{hash_key(ONE)}"]

[[callers]]
name = "ops"
role = "view"
keys = ["{hash_key(OPS)}"]

[[callers]]
name = "off"
disabled = true
keys = ["{hash_key(OFF)}"]
"""


class Guarded:
    """A world whose proxy knows its callers."""

    def __init__(self, world: World, policy: Path, audit: Path) -> None:
        self.world = world
        self.policy = policy
        self.audit = audit

    async def ask(
        self, method: str, path: str, key: str = "", **more: Any
    ) -> tuple[int, str, dict[str, str]]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= more.pop("headers", {})
        async with self.world.http.request(
            method, path, headers=headers, allow_redirects=False, **more
        ) as response:
            return response.status, await response.text(), dict(response.headers)

    async def status(self, method: str, path: str, key: str = "") -> int:
        return (await self.ask(method, path, key))[0]

    def lines(self) -> list[dict[str, str]]:
        text = self.audit.read_text() if self.audit.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


@contextlib.asynccontextmanager
async def guarded_proxy(tmp_path: Path, **more: Any) -> AsyncIterator[Guarded]:
    policy, audit = tmp_path / "callers.toml", tmp_path / "audit.log"
    policy.write_text(POLICY)
    async with EmbeddedRegistry(port=0) as embedded:
        registry = open_registry(embedded.url)
        config = ProxyConfig(
            registry=embedded.url,
            port=0,
            relay=True,
            probe_interval_s=0.05,
            default_service="digits",
            callers=CallersConfig(policy=str(policy), audit_log=str(audit), policy_poll_s=0.05),
            **more,
        )
        async with Proxy(config) as proxy:
            world = World(embedded, registry, proxy)
            both = (ModelInfo(name="digits", versions=("1",)),)
            await world.add("w1", models=(*both, ModelInfo(name="cats", versions=("7",))))
            await world.add("w2", service="cats")
            guarded = Guarded(world, policy, audit)

            async def ready() -> bool:
                text = (await guarded.ask("GET", "/v1/services", ALL))[1]
                return text.count('"instances":1') == 2

            await until(ready, "both services")
            yield guarded
            await world.http.close()
        await registry.aclose()
    await world.stop_workers()
