"""`grpcurl`, as its project publishes it, against a worker: it knows only what reflection tells."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from tests.foreign.environments import environment
from tests.support.colours import encoded
from tests.support.rig import Rig, serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

DOCS = Path(__file__).parents[2] / "docs" / "grpc.md"
CALL = "grpcurl -plaintext -d '{}' $GRPC"


async def shell(rig: Rig, folder: Path, script: str) -> tuple[int, str]:
    """The exit status of a script with `grpcurl`, and what it prints."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", script,
        cwd=folder,
        env={
            "PATH": f"{environment('grpcurl')}:{os.environ['PATH']}",
            "GRPC": f"127.0.0.1:{rig.grpc_port}",
        },
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_the_lines_of_the_documentation(tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(grpcurl.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "cat.jpg").write_bytes(encoded("red"))
    async with serving(grpc=True) as rig:
        status, told = await shell(rig, tmp_path, script)
        assert status == 0, told
        described, begin, answer = told.partition("{")
        assert "inference.GRPCInferenceService\ntensorflow.serving" in described
        assert "rpc ModelInfer ( .inference.ModelInferRequest )" in described
        found = json.loads(begin + answer)
        assert (found["modelName"], found["modelVersion"]) == ("colours", "7")
        scores = np.frombuffer(base64.b64decode(found["rawOutputContents"][0]), np.float32)
        assert scores.argmax() == 0
        assert scores.sum() == pytest.approx(1, abs=1e-3)


async def test_health_and_what_is_not_there(tmp_path: Path) -> None:
    async with serving(grpc=True) as rig:
        status, told = await shell(rig, tmp_path, f"{CALL} grpc.health.v1.Health/Check")
        assert (status, json.loads(told)) == (0, {"status": "SERVING"})
        for line in ("describe inference.GRPCInferenceService.Nothing", "describe nothing.at.all"):
            status, told = await shell(rig, tmp_path, f"grpcurl -plaintext $GRPC {line}")
            assert status
            assert "Symbol not found" in told
        name = "inference.GRPCInferenceService/ModelReady"
        request = """{"name": "flowers", "version": "x"}"""
        status, told = await shell(rig, tmp_path, f"grpcurl -plaintext -d '{request}' $GRPC {name}")
        assert status
        assert "InvalidArgument" in told
        assert "version 'x' is not a number" in told
