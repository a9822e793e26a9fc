"""The client for browsers and Node, used by both, against a real cluster. `make test-browsers`."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from tests.foreign.environments import npm_environment
from tests.support.colours import LABELS, encoded
from tests.support.processes import Process, Processes
from tests.support.python_models import write_python_model

from fingerpost.registry.http.app import bind, serve

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

HERE: Final = Path(__file__).parent
CLIENT: Final = HERE.parents[1] / "client/fingerpost/client/javascript"
# Chromium runs as root only without its sandbox; the rest keeps it from asking for Google's hosts.
CHROMIUM: Final = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
MODEL: Final = """
import time

class Model:
    def __init__(self, folder):
        pass

    def predict(self, batch):
        time.sleep({pause})
        return batch.mean(axis=(1, 2)) / 255
"""
SIZE: Final = "[input]\nheight = 16\nwidth = 16\n[batch]\nmax = 4\n"


class Page:
    """Serves the page and its images, and hears how it went."""

    def __init__(self, workers: list[Process]) -> None:
        self._workers = workers
        self.told: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self.url = ""

    async def file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(HERE / request.match_info["name"])

    async def image(self, request: web.Request) -> web.Response:
        body = encoded(request.match_info["colour"])
        return web.Response(body=body, content_type="image/png")

    async def kill(self, request: web.Request) -> web.Response:
        self._workers[0].signal(signal.SIGKILL)
        return web.Response()

    async def tell(self, request: web.Request) -> web.Response:
        self.told.set_result(json.loads(await request.text()))
        return web.Response()


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Page, str]]:
    """A page, and the proxy of three workers of `colours` and one of `slow` that allow it."""
    quick = write_python_model(
        folder / "colours", MODEL.format(pause=0.002), "mean:Model", labels=LABELS, more=SIZE
    )
    slow = write_python_model(
        folder / "slow", MODEL.format(pause=1.0), "mean:Model", labels=LABELS, more=SIZE
    )
    with Processes(folder) as processes:
        listener = bind("127.0.0.1", 0)
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        allowed = ("--allow-origin", origin)
        registry = processes.registry()
        proxy = processes.proxy(registry, *allowed)
        workers = [processes.worker(registry, quick, *allowed) for _ in range(3)]
        processes.worker(registry, slow, *allowed)
        await asyncio.to_thread(processes.workers, proxy, 3, "colours")
        await asyncio.to_thread(processes.workers, proxy, 1, "slow")
        page = Page(workers)
        page.url = origin
        app = web.Application()
        app.router.add_get("/{name:page.html|scenarios.js}", page.file)
        app.router.add_get("/{colour:red|green|blue}.png", page.image)
        app.router.add_post("/call/kill", page.kill)
        app.router.add_post("/told", page.tell)
        runner = web.AppRunner(app)
        await runner.setup()
        await serve(runner, listener)
        try:
            yield page, proxy
        finally:
            await runner.cleanup()


async def run(page: Page, *command: object) -> None:
    """Run a program until it has told how it went; all scenarios must have passed."""
    process = await asyncio.create_subprocess_exec(*map(str, command))
    try:
        async with asyncio.timeout(120):
            told = await page.told
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert len(told) > 3, told
    assert set(told.values()) == {"passed"}, "\n".join(f"{k}: {v}" for k, v in told.items())


async def test_in_node(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (page, proxy):
        await run(page, "node", HERE / "program.mjs", page.url, proxy, CLIENT / "fingerpost.js")


async def test_in_chromium_from_the_proxy(tmp_path: Path) -> None:
    """The page is of another origin than the proxy and the workers, and they allow it."""
    async with cluster(tmp_path) as (page, proxy):
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        await run(page, *CHROMIUM, profile, f"{page.url}/page.html?proxy={proxy}")


def test_types(tmp_path: Path) -> None:
    """TypeScript accepts right use, refuses wrong use, and accepts the module's own comments."""
    modules = npm_environment("typescript@5.9.3")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/fingerpost-client").symlink_to(CLIENT)
    (tmp_path / "typed.ts").write_text((HERE / "typed.ts").read_text())
    options = {
        "strict": True, "noEmit": True, "target": "es2022", "module": "nodenext",
        "lib": ["es2022", "dom", "dom.iterable", "dom.asynciterable"], "types": [],
        "skipLibCheck": False,
    }  # fmt: skip
    (tmp_path / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": options, "files": ["typed.ts"]})
    )
    done = subprocess.run(
        ["node", modules / "typescript/bin/tsc", "-p", tmp_path],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_npm_would_publish_these_files() -> None:
    done = subprocess.run(
        ["npm", "pack", "--dry-run", "--json", CLIENT],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    (packed,) = json.loads(done.stdout)
    assert {each["path"] for each in packed["files"]} == {
        "fingerpost.js", "fingerpost.d.ts", "package.json",
    }  # fmt: skip
    assert packed["unpackedSize"] < 40_000
