"""The example of docs/zeromq.md does what it says."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.support.colours import encoded
from tests.support.rig import Rig

PAGE = Path(__file__).parents[3] / "docs" / "zeromq.md"


async def test_the_example(rig: Rig, tmp_path: Path) -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "cat.jpg").write_bytes(encoded("red", (40, 30), "JPEG"))
    (tmp_path / "nothing.txt").write_bytes(b"no image")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text),
        cwd=tmp_path,
        env=os.environ | {"ZMQ": f"127.0.0.1:{rig.zmq_port}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    opened, *answers, ended = printed.decode().splitlines()
    assert "'credit': 64" in opened
    assert sum("['red', " in each for each in answers) == 2
    assert sum("'unsupported_image'" in each for each in answers) == 1
    assert ended == "{'type': 'ended', 'taken': 3, 'reason': 'done'}"
