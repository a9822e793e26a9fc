"""An API server of Kubernetes in this process: lists, watches, merge patches, and its refusals.

It has what a registry uses, as the real one does it; the same tests run on both (`--kubernetes
real`), which keeps it honest. Objects are not validated.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from typing import Any

from aiohttp import web

from fingerpost.registry.http.app import bind, serve
from tests.support.waiting import until

TOKEN = "fake-admin-token"  # noqa: S105
_BEFORE_END_S = 0.2


class FakeApi:
    """A server on a free port of loopback.

    Attributes:
        url: its base URL, plain HTTP.
        versions: the versions of EndpointSlices that it has.
        denied: pairs of a token and a verb and resource, as `("t", "list leases")`, to refuse.
        tokens: the tokens that it accepts.
        requests: verb and resource of each request, such as `list leases`.
        watches: how many watches it holds now.
        gone: the resources whose next watch is refused, because its version is too old (410).
        forgetful: whether each watch is.
        hangs: whether it does not end watches, nor tells anything there.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self._runner: web.AppRunner | None = None
        self.versions = {"v1"}
        self.tokens = {TOKEN}
        self.denied: set[tuple[str, str]] = set()
        self.requests: list[str] = []
        self.watches = 0
        self.gone: set[str] = set()
        self.forgetful = False
        self.hangs = False
        self.url = ""
        self.forget()

    def forget(self) -> None:
        """Lose everything, as a store that was set up anew."""
        self._version = 1
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._events: list[tuple[int, str, str, dict[str, Any]]] = []
        self._changed = asyncio.Event()

    async def start(self) -> str:
        app = web.Application(client_max_size=4_000_000)
        path = "/{root:api|apis}/{rest:.*}"
        app.router.add_route("*", path, self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", self._port))
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        return self.url

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            await until(lambda: not self.watches)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        group, version, namespace, resource, name = _parse(request.path)
        verb = _verb(request, name)
        self.requests.append(f"{verb} {resource}")
        if token not in self.tokens:
            return _status(401, "Unauthorized", "Unauthorized")
        if (token, f"{verb} {resource}") in self.denied:
            return _status(
                403,
                "Forbidden",
                f'{resource} is forbidden: User "t" cannot {verb} resource "{resource}" in API '
                f'group "{group}" in the namespace "{namespace}"',
            )
        if resource == "endpointslices" and version not in self.versions:
            return _status(404, "NotFound", "the server could not find the requested resource")
        if verb == "watch":
            return await self._watch(request, resource, namespace)
        if verb == "list":
            return self._list(request, resource, namespace)
        return await self._one(request, verb, (resource, namespace, name))

    def _list(self, request: web.Request, resource: str, namespace: str) -> web.Response:
        found = [
            each
            for (kind, space, _), each in sorted(self._objects.items())
            if kind == resource and (not namespace or space == namespace)
            if _selected(each, request.query.get("labelSelector", ""))
        ]
        start = int(request.query.get("continue", "0") or 0)
        limit = int(request.query.get("limit", "0")) or len(found) or 1
        more = str(start + limit) if start + limit < len(found) else ""
        return web.json_response(
            {
                "kind": "List",
                "metadata": {"resourceVersion": str(self._version), "continue": more},
                "items": found[start : start + limit],
            }
        )

    async def _one(
        self, request: web.Request, verb: str, key: tuple[str, str, str]
    ) -> web.Response:
        resource, namespace, name = key
        if verb == "create":
            body = await request.json()
            name = body["metadata"]["name"]
            if resource != "namespaces" and ("namespaces", "", namespace) not in self._objects:
                return _status(404, "NotFound", f'namespaces "{namespace}" not found')
            key = (resource, namespace, name)
            if key in self._objects:
                return _status(409, "AlreadyExists", f'{resource} "{name}" already exists')
            body["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": namespace}
            return web.json_response(self._store("ADDED", key, body), status=201)
        if key not in self._objects:
            return _status(404, "NotFound", f'{resource} "{name}" not found')
        old = self._objects[key]
        if verb == "get":
            return web.json_response(old)
        if verb == "delete":
            del self._objects[key]
            return web.json_response(self._store("DELETED", None, old | {}, resource=resource))
        assert request.content_type == "application/merge-patch+json"
        new = _merge(copy.deepcopy(old), await request.json())
        if new == old:
            return web.json_response(old)
        return web.json_response(self._store("MODIFIED", key, new))

    def _store(
        self,
        event: str,
        key: tuple[str, str, str] | None,
        body: dict[str, Any],
        *,
        resource: str = "",
    ) -> dict[str, Any]:
        self._version += 1
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self._version)
        if key is not None:
            resource = key[0]
            self._objects[key] = body
        self._events.append((self._version, event, resource, body))
        self._changed.set()
        self._changed = asyncio.Event()
        return body

    async def _watch(
        self, request: web.Request, resource: str, namespace: str
    ) -> web.StreamResponse:
        query = request.query
        since = int(query["resourceVersion"])
        loop = asyncio.get_running_loop()
        end = loop.time() + int(query["timeoutSeconds"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if resource in self.gone or self.forgetful:
            self.gone.discard(resource)
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await response.write(_line("ERROR", gone))
            return response
        self.watches += 1
        try:  # ended by cancellation where the client goes
            bookmarked = "allowWatchBookmarks" not in query
            while self.hangs:
                await asyncio.sleep(0.05)
            while (left := end - loop.time()) > 0:
                changed = self._changed
                for version, event, kind, body in self._events[:]:
                    if version <= since or kind != resource:
                        continue
                    if body["metadata"]["namespace"] != namespace:
                        continue
                    if _selected(body, query.get("labelSelector", "")):
                        await response.write(_line(event, body))
                since = max(since, self._version)
                if not bookmarked and left <= _BEFORE_END_S:
                    bookmarked = True
                    mark = {"metadata": {"resourceVersion": str(since)}}
                    await response.write(_line("BOOKMARK", mark))
                wait_s = left if bookmarked else max(0.01, left - _BEFORE_END_S)
                try:
                    async with asyncio.timeout(min(left, wait_s)):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self.watches -= 1
        return response


def _parse(path: str) -> tuple[str, str, str, str, str]:
    """Group, version, namespace, resource and name of a path."""
    parts = path.strip("/").split("/")
    group, parts = ("", parts[1:]) if parts[0] == "api" else (parts[1], parts[2:])
    version, *rest = parts
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return group, version, namespace, rest[0], rest[1] if len(rest) > 1 else ""


def _verb(request: web.Request, name: str) -> str:
    if request.method == "GET":
        return "get" if name else "watch" if request.query.get("watch") else "list"
    return {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[request.method]


def _selected(body: dict[str, Any], selector: str) -> bool:
    labels = body["metadata"].get("labels") or {}
    wanted = [each.split("=") for each in selector.split(",") if each]
    return all(labels.get(key) == value for key, value in wanted)


def _merge(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = old if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _line(event: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": event, "object": body}).encode() + b"\n"


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return web.json_response(body | {"message": message}, status=code)
