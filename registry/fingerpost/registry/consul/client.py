"""py-consul over `ConsulHttp`. Imported only when a registry first calls its agent.

py-consul has the agent's paths and payloads. Its own transport is not used because it reads tokens
and addresses from the environment, has one timeout for everything, raises aiohttp's errors, and
does not send the token with every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import consul.base

from fingerpost.errors import RegistryError
from fingerpost.registry.peers.answer import DECODE_ERRORS

if TYPE_CHECKING:
    from fingerpost.registry.consul.http import ConsulHttp

__all__ = ["ConsulClient"]


class ConsulClient(consul.base.Consul):  # type: ignore[misc]
    """`consul.Consul` whose calls are coroutines that raise `RegistryError`s."""

    def __init__(self, http: ConsulHttp) -> None:
        self._ours = http
        # With all arguments, so that they are not read from the environment. The token is, all the
        # same; `_Transport` sends the headers of `http` and none of py-consul's.
        super().__init__(host="unused", port=1, scheme="http", verify=True)

    def http_connect(self, *_: object, **__: object) -> Any:
        """The transport of the base class, which calls this."""
        return _Transport(self._ours)


class _Transport(consul.base.HTTPClient):  # type: ignore[misc]
    def __init__(self, http: ConsulHttp) -> None:
        super().__init__()
        self._ours = http

    def get(self, callback: Any, path: str, params: Any = None, *_: object, **__: object) -> Any:
        return self._get(callback, path, params)

    async def _get(self, callback: Any, path: str, params: Any) -> Any:
        answer = await self._ours.call("GET", path, params=_text(params), not_found_ok=True)
        return _finish(callback, answer.status, answer.headers, answer.body)

    def put(
        self, callback: Any, path: str, params: Any = None, data: Any = "", *_: object, **__: object
    ) -> Any:
        return self._put(callback, path, params, data)

    async def _put(self, callback: Any, path: str, params: Any, data: Any) -> Any:
        answer = await self._ours.call(
            "PUT", path, params=_text(params), data=data, not_found_ok=True
        )
        return _finish(callback, answer.status, answer.headers, answer.body)

    def delete(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("Fingerpost deletes nothing through py-consul")

    def post(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("Fingerpost posts nothing through py-consul")

    def close(self) -> None:
        """Nothing to close: the connections belong to `ConsulHttp`."""


def _text(params: Any) -> dict[str, str]:
    # Python's True would be sent as "True"; Consul documents "true".
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in params or ()
    }


def _finish(callback: Any, status: int, headers: Any, body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return callback(consul.base.Response(status, headers, text))
    except (consul.ConsulException, *DECODE_ERRORS, LookupError, TypeError) as error:
        raise RegistryError(f"the registry's answer cannot be read: {error}") from error
