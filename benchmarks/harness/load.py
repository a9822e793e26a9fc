"""Load from `wrk`, which is in C and not the bottleneck: a fixed body from open connections."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.environments import debian_tool

__all__ = ["Load", "post"]

_SCRIPT = """
local file = io.open(os.getenv("BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
file:close()
local threads = {}
function setup(thread) table.insert(threads, thread) end
function response(status) if status ~= 200 then bad = (bad or 0) + 1 end end
function done(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  for _, thread in ipairs(threads) do failed = failed + (thread:get("bad") or 0) end
  print(string.format('{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came of it. `failed` counts broken connections and statuses other than 200."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def post(
    url: str,
    body: Path,
    *,
    connections: int,
    seconds: float,
    content_type: str = "image/jpeg",
) -> Load:
    """POST `body` again and again over so many connections.

    Raises:
        RuntimeError: a request failed, so that the figure would mean nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_SCRIPT)
        wrk = debian_tool("wrk", "libluajit-5.1-2")
        output = subprocess.run(
            [*wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s",
             "-s", script, url],
            check=True, capture_output=True, text=True, timeout=seconds + 90,
            env={"BODY": str(body), "CONTENT_TYPE": content_type, "PATH": "/usr/bin:/bin"},
        ).stdout  # fmt: skip
    load = Load(**json.loads(output[output.rindex("{") :]))
    if load.failed or not load.requests:
        raise RuntimeError(f"{url}: {load.failed} of {load.requests} requests failed")
    return load
