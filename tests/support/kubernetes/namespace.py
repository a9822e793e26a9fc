"""A namespace of an API server, real or not, written to behind the registry's back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import uuid
from typing import Any

import aiohttp

from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.consul.tls import Tls
from fingerpost.registry.credentials import Token
from fingerpost.registry.kubernetes.access import Access
from fingerpost.registry.kubernetes.codec import PodReference
from fingerpost.registry.kubernetes.registry import KubernetesRegistry

POD = PodReference(name="worker-0", uid="0b5b0a5e-0000-4000-8000-000000000000")


class Namespace:
    """One namespace with one Service, `workers`, and what its controllers would write.

    Args:
        url: the API server.
        token: that of an administrator.
        ca_file: the authority of the server's certificate; None for plain HTTP.
        version: the version of EndpointSlices.
    """

    def __init__(
        self, url: str, token: str, *, ca_file: str | None = None, version: str = "v1"
    ) -> None:
        self.server = url
        self.token = token
        self.name = f"fp-{uuid.uuid4().hex[:8]}"
        self.url = f"kubernetes://{self.name}"
        self.version = version
        self.ca_file = ca_file
        tls = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))

    def access(self, **fields: Any) -> Access:
        tls = None
        if self.ca_file is not None:
            tls = Tls(RegistryConfig(ca_file=self.ca_file))
        fields.setdefault("token", Token(self.token))
        fields.setdefault("pod", POD)
        return Access(server=self.server, namespace="default", tls=tls, **fields)

    def registry(self, url: str | None = None, **arguments: Any) -> KubernetesRegistry:
        access = arguments.pop("access", None) or self.access()
        return KubernetesRegistry(url or self.url, access=access, **arguments)

    async def call(
        self, method: str, path: str, body: Any = None, *, ok: tuple[int, ...] = (200, 201)
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        async with self._session.request(
            method, self.server + path, json=body, headers=headers
        ) as answer:
            read = await answer.json()
            assert answer.status in ok, read
            return read

    def path(self, api: str, name: str = "") -> str:
        group, _, resource = api.rpartition("/")
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        return f"{root}/namespaces/{self.name}/{resource}{'/' + name if name else ''}"

    def leases(self, name: str = "") -> str:
        return self.path("coordination.k8s.io/v1/leases", name)

    def slices(self, name: str = "") -> str:
        return self.path(f"discovery.k8s.io/{self.version}/endpointslices", name)

    async def create(self) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}}
        await self.call("POST", "/api/v1/namespaces", body, ok=(201, 409))

    async def put_slice(
        self, name: str, endpoints: list[dict[str, Any]], *, service: str = "workers"
    ) -> None:
        """Create or replace a slice."""
        labels = {"kubernetes.io/service-name": service}
        patch = {"endpoints": endpoints}
        body = {
            "apiVersion": f"discovery.k8s.io/{self.version}",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8500}],
        }
        made = await self.call("PATCH", self.slices(name), patch, ok=(200, 404))
        if made.get("kind") == "Status":
            await self.call("POST", self.slices(), body | patch)

    async def delete_slice(self, name: str) -> None:
        await self.call("DELETE", self.slices(name), ok=(200, 404))

    async def aclose(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await self._session.close()


def endpoint(
    address: str = "127.0.0.1",
    pod: PodReference = POD,
    *,
    zone: str | None = None,
    **conditions: Any,
) -> dict[str, Any]:
    """A pod in a slice."""
    made = {
        "addresses": [address],
        "conditions": {"ready": True} | conditions,
        "targetRef": {"kind": "Pod", "name": pod.name, "uid": pod.uid},
    }
    return made | ({"zone": zone} if zone is not None else {})


class Kubelet:
    """Probes the test's worker as a readinessProbe does, and writes the slice that follows.

    Every 50 ms instead of every second, so that tests are short.
    """

    def __init__(self, namespace: Namespace, worker: Any) -> None:
        self._namespace = namespace
        self._worker = worker
        self._task: asyncio.Task[None] | None = None
        self._ready: bool | None = None

    async def start(self) -> None:
        await self._write(ready=True)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                await asyncio.sleep(0.05)
                ready = False
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    url = f"http://127.0.0.1:{self._worker.port}/health/engine"
                    async with session.get(url) as answer:
                        ready = answer.status == 200
                if ready != self._ready:
                    with contextlib.suppress(aiohttp.ClientError, OSError):
                        await self._write(ready=ready)

    async def _write(self, *, ready: bool) -> None:
        await self._namespace.put_slice("workers-1", [endpoint(ready=ready)])
        self._ready = ready
