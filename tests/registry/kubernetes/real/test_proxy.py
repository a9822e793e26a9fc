"""A proxy with a thousand endpoints in ten slices: how soon it tells of a change; memory."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp
import pytest
from tests.registry.kubernetes.test_registry import address, instance, pod, put_pods
from tests.support.kubernetes.namespace import endpoint
from tests.support.optional import not_none
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.waiting import until

MAX_RSS = 150_000_000
COUNT = 1000


@pytest.fixture
def kubeconfig(api, namespace, tmp_path):
    body = {
        "current-context": "c",
        "clusters": [
            {"name": "c", "cluster": {"server": api.url, "certificate-authority": api.ca_file}}
        ],
        "users": [{"name": "u", "user": {"token": api.token}}],
        "contexts": [
            {
                "name": "c",
                "context": {"cluster": "c", "user": "u", "namespace": namespace.name},
            }
        ],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(body))
    return path


async def test_a_proxy_of_a_thousand_workers(namespace, kubeconfig, service, tmp_path):
    await put_pods(namespace, service, COUNT)
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/resolve/{service}"
    with Processes(tmp_path) as processes:
        proxy = await asyncio.to_thread(
            processes.start,
            "proxy",
            "--port",
            port,
            "--registry",
            f"kubernetes://?kubeconfig={kubeconfig}",
        )
        async with aiohttp.ClientSession() as session:

            async def resolve(index=0):
                query = f"?index={index}&wait=10s" if index else ""
                try:
                    async with session.get(url + query) as answer:
                        return await answer.json() if answer.status == 200 else None
                except aiohttp.ClientError:
                    return None

            async def all_listed():
                answer = await resolve()
                return answer if answer and len(answer["instances"]) == COUNT else None

            answer = await until(all_listed, within_s=30, every_s=0.2)
            slowest = 0.0
            for number in range(0, COUNT, 100):  # one pod of each slice
                waiting = asyncio.create_task(resolve(answer["index"]))
                await asyncio.sleep(0.1)  # the request is held
                first = number // 100 * 100
                pods = [
                    endpoint(address(n), pod(n), zone="a", ready=n != number)
                    for n in range(first, first + 100)
                ]
                began = time.monotonic()
                await namespace.put_slice(f"workers-{first}", pods)
                answer = not_none(await waiting)
                slowest = max(slowest, time.monotonic() - began)
                assert instance(service, number).id not in json.dumps(answer)
        rss = _rss(proxy.pid)
    print(f"slowest change: {slowest * 1000:.0f} ms; peak memory: {rss / 1e6:.0f} MB")
    assert slowest < 1
    assert rss < MAX_RSS


def _rss(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024
