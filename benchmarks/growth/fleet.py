"""Workers that are only registered: entries, and one process that answers for them all.

`python -m benchmarks.growth.fleet COUNT` listens on so many ports of loopback and prints them. It
answers load probes, and images with always the same label.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request

import msgspec
from aiohttp import web

from fingerpost.client.wire import ClassifyAnswer, ImageAnswer
from fingerpost.registry import LOAD_HEADER, Instance, LoadReport, ModelInfo, WorkerState
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.schema.codec import encode_instance
from fingerpost.registry.http.app import json_response

__all__ = ["SERVICE", "instance", "register"]

SERVICE = "simulated"
_BOOT_ID = 7


def instance(number: int, port: int = 8000, *, grpc: bool = False) -> Instance:
    """One of the fleet, with as much to say of itself as a real one; `grpc` gives it that port."""
    return Instance(
        id=f"{SERVICE}-127.0.0.1-{port}-{number:08x}",
        service=SERVICE,
        host="127.0.0.1",
        ports={"http": port, **({"grpc": port} if grpc else {})},
        models=(ModelInfo(name=SERVICE, versions=("2", "1"), aliases={"stable": "1"}),),
        boot_id=_BOOT_ID,
        meta={"device": "cpu", "framework": "onnxruntime 1.32.0", "image-size": "224x224"},
    )


def register(registry: str, entry: Instance) -> None:
    """Put it into a Consul, with no check, so that it counts as healthy."""
    words = encode_instance(entry, CheckConfig())
    body = {
        "ID": words["service_id"], "Name": words["name"], "Address": words["address"],
        "Port": words["port"], "Tags": words["tags"], "Meta": words["meta"],
        "Weights": words["weights"],
    }  # fmt: skip
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{registry}/v1/agent/service/register", json.dumps(body).encode(), method="PUT"
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - loopback
        pass


async def _serve(count: int) -> None:
    seq = 0
    answer = msgspec.json.encode(
        ClassifyAnswer(
            model=SERVICE,
            version="1",
            results=(ImageAnswer(name="data", predictions=(("something", 0.75),)),),
        )
    )

    def report() -> LoadReport:
        nonlocal seq
        seq += 1
        return LoadReport(rif=1, slots=4, state=WorkerState.READY, boot_id=_BOOT_ID, seq=seq)

    async def load(request: web.Request) -> web.Response:
        return json_response(report())

    async def classify(request: web.Request) -> web.Response:
        await request.read()
        headers = {LOAD_HEADER: report().to_header()}
        return web.Response(body=answer, content_type="application/json", headers=headers)

    app = web.Application()
    app.add_routes([web.get("/load", load), web.post("/v1/classify/{model}", classify)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for _ in range(count):
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps([address[1] for address in runner.addresses]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
