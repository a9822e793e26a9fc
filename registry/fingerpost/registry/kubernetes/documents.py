"""Documents, each in a ConfigMap named `fingerpost-NAME`."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.basics.deadline import deadline
from fingerpost.errors import RegistryError
from fingerpost.registry.documents import check_document
from fingerpost.registry.kubernetes.codec import LABEL
from fingerpost.registry.kubernetes.http import AlreadyExists, NotFound
from fingerpost.registry.kubernetes.resource import CONFIG_MAPS
from fingerpost.registry.peers.answer import DECODE_ERRORS

if TYPE_CHECKING:
    from fingerpost.registry.kubernetes.http import KubernetesHttp

__all__ = ["read_document", "write_document"]

_KEY: Final = "content"


class _ConfigMap(msgspec.Struct, rename="camel"):
    binary_data: dict[str, str] | None = None


_decode: Final = msgspec.json.Decoder(_ConfigMap).decode


async def read_document(
    http: KubernetesHttp, namespace: str, name: str, *, call_timeout_s: float
) -> bytes | None:
    """The document of that name; None if there is none. Raises `RegistryError`."""
    resource, map_name = CONFIG_MAPS.at(namespace), _map_name(check_document(name))
    async with deadline(call_timeout_s, f"reading {map_name} at {http.server}"):
        try:
            body = await http.call("get", resource, map_name)
        except NotFound:
            return None
    try:
        content = (_decode(body).binary_data or {}).get(_KEY)
        return None if content is None else base64.b64decode(content, validate=True)
    except (*DECODE_ERRORS, binascii.Error) as error:
        raise RegistryError(f"the ConfigMap {map_name} is not a document: {error}") from error


async def write_document(
    http: KubernetesHttp, namespace: str, name: str, content: bytes, *, call_timeout_s: float
) -> None:
    """Write the document of that name. Raises `RegistryError`.

    It is patched first: a Role can allow that for this one ConfigMap, but creating for all only.
    """
    resource, map_name = CONFIG_MAPS.at(namespace), _map_name(check_document(name, content))
    patch = {"binaryData": {_KEY: base64.b64encode(content).decode()}}
    async with deadline(call_timeout_s, f"writing {map_name} at {http.server}"):
        try:
            await http.call("patch", resource, map_name, body=patch)
        except NotFound:
            key, value = LABEL
            created = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": map_name, "labels": {key: value}},
                **patch,
            }
            try:
                await http.call("create", resource, body=created)
            except AlreadyExists:  # another process was faster
                await http.call("patch", resource, map_name, body=patch)


def _map_name(name: str) -> str:
    return f"fingerpost-{name}"
