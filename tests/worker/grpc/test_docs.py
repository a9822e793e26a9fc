"""The example of docs/grpc.md does what it says."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.support.colours import encoded
from tests.support.rig import Rig

PAGE = Path(__file__).parents[3] / "docs" / "grpc.md"


async def test_the_example(rig: Rig, tmp_path: Path) -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "cat.jpg").write_bytes(encoded("red", (40, 30), "JPEG"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text),
        cwd=tmp_path,
        env=os.environ | {"GRPC": f"127.0.0.1:{rig.grpc_port}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    assert "(1, 3)" in printed.decode()
    assert ":0:red" in printed.decode()
