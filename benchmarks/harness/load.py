"""Load from `wrk`, which is in C and not the bottleneck: one request again and again."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.environments import debian_tool

__all__ = ["Load", "get", "post"]

# Without a function `response`, which would take wrk longer than all the rest of a request.
_SCRIPT = """
local body = os.getenv("BODY")
if body then
  local file = io.open(body, "rb")
  wrk.method = "POST"
  wrk.body = file:read("*all")
  wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
  wrk.headers["Authorization"] = os.getenv("AUTHORIZATION")
  file:close()
end
function done(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came of it. `failed` counts broken connections and statuses from 400 on."""

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
    least: int = 1,
    bearer: str | None = None,
) -> Load:
    """POST `body` again and again over so many connections, with `bearer` as its token if any.

    Raises:
        RuntimeError: a request failed, or fewer than `least` were answered in the time, so that the
            figure would mean nothing.
    """
    environ = {"BODY": str(body), "CONTENT_TYPE": content_type}
    if bearer is not None:
        environ["AUTHORIZATION"] = f"Bearer {bearer}"
    return _wrk(url, connections, seconds, environ, least)


def get(url: str, *, connections: int, seconds: float) -> Load:
    """GET `url` again and again over so many connections. Raises as `post` does."""
    return _wrk(url, connections, seconds, {}, 1)


def _wrk(url: str, connections: int, seconds: float, environ: dict[str, str], least: int) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "wrk.lua"
        script.write_text(_SCRIPT)
        wrk = debian_tool("wrk", "libluajit-5.1-2")
        output = subprocess.run(
            [*wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s",
             "-s", script, url],
            check=True, capture_output=True, text=True, timeout=seconds + 90,
            env={**os.environ, **environ},
        ).stdout  # fmt: skip
    load = Load(**json.loads(output[output.rindex("{") :]))
    if load.failed or load.requests < least:
        raise RuntimeError(
            f"{url}: {load.failed} requests failed, {load.requests} were answered in {seconds:g} s"
        )
    return load
