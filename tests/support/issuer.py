"""An OIDC issuer, for tokens of callers."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web
from joserfc import jwk, jwt

from fingerpost.registry.http.app import bind, serve

__all__ = ["Issuer"]


class Issuer:
    """A real server with a discovery document and keys.

    Attributes:
        key: the private key that it signs with.
        requests: the paths that were asked for.
        url: where it is, once it has started.
    """

    def __init__(self) -> None:
        self.key = jwk.ECKey.generate_key("P-256", {"kid": "k1"})
        self.requests: list[str] = []
        self.url = ""

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if request.path.endswith("openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    def token(self, subject: str = "anna", **changed: Any) -> str:
        claims = {"iss": self.url, "aud": "fp", "sub": subject, "exp": time.time() + 60}
        header = {"alg": "ES256", "kid": self.key.kid}
        return jwt.encode(header, {**claims, **changed}, self.key)
