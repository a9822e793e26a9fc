"""The admin API: what is loaded, and commands to load, unload, roll back and move aliases.

| request | does | role |
|---|---|---|
| `GET /v1/admin/models` | shows every model: default version, aliases, versions, problems | view |
| `POST /v1/admin/models/M/versions/V/load` | loads a version, against the policy too | operate |
| `POST /v1/admin/models/M/versions/V/unload` | unloads a version | operate |
| `POST /v1/admin/models/M/rollback` | serves the version below the default one | operate |
| `PUT /v1/admin/models/M/aliases/A` | `{"version": "3"}`: points an alias to it | operate |
| `POST /v2/repository/models/M/load` | loads the versions that the policy chooses | operate |
| `POST /v2/repository/models/M/unload` | unloads all versions of a model | admin |

Each needs a caller with the role, or the admin token as `Authorization: Bearer TOKEN` (see
`admin_access`), and is answered when it is done, with the model as `GET` shows it. A command holds
until the worker ends, the version's folder is removed, or (for aliases) the model's `versions.toml`
changes. The last two are Triton's, for its clients; a load with a configuration or files is
refused, because models are loaded from the disk only.

Without a token and callers these paths do not exist: clients that classify may not switch models.
Rejected: an answer before the work is done, for whose end every caller would have to poll.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fingerpost.errors import InvalidName, InvalidRequest
from fingerpost.registry.http.app import json_response
from fingerpost.registry.http.query_parameters import check_parameters
from fingerpost.registry.names import check_version
from fingerpost.registry.old_spellings import warn_old_spelling
from fingerpost.worker.repository.control import ModelControl
from fingerpost.worker.serving.errors import message_error, typed_error
from fingerpost.worker.serving.routes import ProtocolRoutes

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.registry.http.app import Handler
    from fingerpost.worker.protocols.admin_access import AdminAccess
    from fingerpost.worker.repository.repository import ModelRepository
    from fingerpost.worker.serving.routes import RouteContext

__all__ = ["AdminProtocol"]

_MAX_BODY_BYTES = 4096
_BODY_S = 10.0
_OWN = "/v1/admin"

T = TypeVar("T")


class _Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str


class _Load(msgspec.Struct, frozen=True):
    parameters: dict[str, Any] = {}


class AdminProtocol:
    """Commands to a repository from those who may; `add_to` makes the routes."""

    def __init__(self, repository: ModelRepository, access: AdminAccess) -> None:
        self._repository = repository
        self._control = ModelControl(repository)
        self._access = access

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""
        base, guarded = f"{_OWN}/models", self._guarded
        own = ProtocolRoutes(context, _OWN, typed_error)
        version = base + "/{model}/versions/{version}"
        own.get(base, guarded("view", "list models", self._list))
        own.post(version + "/load", guarded("operate", "load", self._load))
        own.post(version + "/unload", guarded("operate", "unload", self._unload))
        own.post(base + "/{model}/rollback", guarded("operate", "rollback", self._rollback))
        own.put(base + "/{model}/aliases/{alias}", guarded("operate", "alias", self._set_alias))
        own.put(base + "/{model}/labels/{alias}", guarded("operate", "alias", self._set_label))
        triton = ProtocolRoutes(context, "/v2/repository", message_error)
        model = "/v2/repository/models/{model}"
        triton.post(model + "/load", guarded("operate", "load model", self._load_model))
        triton.post(model + "/unload", guarded("admin", "unload model", self._unload_model))

    def _guarded(self, role: str, action: str, handler: Handler) -> Handler:
        """The handler for callers with a role; each order is written down with its result."""
        access = self._access

        async def checked(request: web.Request) -> web.StreamResponse:
            target = _target(request)
            caller = await access.check(request, role, action, target)
            if request.path.startswith(_OWN):  # Triton's paths have Triton's rules
                check_parameters(request.query, ())
            if role == "view":
                return await handler(request)
            try:
                response = await handler(request)
            except asyncio.CancelledError:
                access.ordered(request, caller, action, target, "the caller left, or the worker")
                raise
            except Exception as error:
                access.ordered(request, caller, action, target, error)
                raise
            access.ordered(request, caller, action, target)
            return response

        return checked

    async def _list(self, _: web.Request) -> web.Response:
        return json_response(
            {"models": [self._model(name) for name in self._repository.model_names()]}
        )

    async def _load(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        await self._control.load(model, _version(request.match_info["version"]))
        return json_response(self._model(model))

    async def _unload(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        await self._control.unload(model, _version(request.match_info["version"]))
        return json_response(self._model(model))

    async def _rollback(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        await self._control.rollback(model)
        return json_response(self._model(model))

    async def _set_alias(self, request: web.Request) -> web.Response:
        wanted = await _body(request, _Alias, '{"version": "3"}')
        model = request.match_info["model"]
        await self._control.set_alias(model, request.match_info["alias"], _version(wanted.version))
        return json_response(self._model(model))

    async def _set_label(self, request: web.Request) -> web.Response:
        """Answer `PUT .../labels/{alias}`, the path that release 0.1.0 has for `_set_alias`."""
        warn_old_spelling(
            "/labels/", "/aliases/", "PUT /v1/admin/models/M/labels/A", "change the caller's URL"
        )
        return await self._set_alias(request)

    async def _load_model(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        given = (await _body(request, _Load, "{}")).parameters if request.can_read_body else {}
        if given:
            raise InvalidRequest(
                f"a load with {', '.join(given)[:200]} is not supported: {model} is loaded from "
                "the disk"
            )
        await self._control.load_model(model)
        return json_response(self._model(model))

    async def _unload_model(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        await self._control.unload_model(model)
        return json_response(self._model(model))

    def _model(self, name: str) -> dict[str, Any]:
        repository = self._repository
        return {
            "name": name,
            "default": repository.default_version(name),
            "aliases": next((m.aliases for m in repository.models() if m.name == name), {}),
            "versions": [
                {"version": each.version, "state": each.state.value, "error": each.error}
                for each in repository.statuses(name)
            ],
            "problems": repository.problems(name),
        }


def _target(request: web.Request) -> str:
    """What an order is for: `flowers`, `flowers@3`, `flowers@stable`."""
    found = request.match_info
    wanted = found.get("version") or found.get("alias")
    model = found.get("model", "")
    return f"{model}@{wanted}" if wanted else model


async def _body(request: web.Request, kind: type[T], example: str) -> T:
    if (request.content_length or 0) > _MAX_BODY_BYTES or request.content_length is None:
        raise InvalidRequest(f"the body must be {example}, with its Content-Length")
    try:
        async with asyncio.timeout(_BODY_S):
            body = await request.read()
        return msgspec.json.decode(body, type=kind)
    except TimeoutError:
        raise InvalidRequest(f"the body did not arrive within {_BODY_S:g} s") from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body must be {example}: {error}") from error


def _version(text: str) -> int:
    try:
        return int(check_version(text))
    except InvalidName as error:
        raise InvalidRequest(error.message) from error
