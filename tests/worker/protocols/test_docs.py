"""The examples of docs/protocols.md do what they say."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.colours import encoded
from tests.support.rig import Rig

PAGE = Path(__file__).parents[3] / "docs" / "protocols.md"
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
# What each prints, in the order of the page.
EXPECTED = (
    ('[["red",', '"results":[{"name":"cat.jpg","predictions":[["red"', '"version":"7"'),
    ('"task":"classification"', '{"name":"data","predictions":[["red",', '"cat.jpg"'),
    ('"type":"opened"', '"seq":2', '{"type":"ended","taken":3,"reason":"done"}'),
    ("Opened(", "StreamAnswer(seq=9", "Ended(taken=10"),
    ('{"predictions":[[0.9', '{"outputs":[[0.9', '{"result":[[["red"', "AVAILABLE", "DT_STRING"),
    ("(1, 3)", ":0:red"),
    ('"platform":', '"datatype":"FP32","shape":[1,3],"data":[0.9'),
)


@pytest.mark.parametrize("number", range(len(EXPECTED)))
async def test_examples(rig: Rig, tmp_path: Path, number: int) -> None:
    assert len(EXAMPLES) == len(EXPECTED)
    kind, text = EXAMPLES[number]
    (tmp_path / "cat.jpg").write_bytes(encoded("red", (40, 30), "JPEG"))
    command = [sys.executable, "-c"] if kind == "python" else ["bash", "-euo", "pipefail", "-c"]
    process = await asyncio.create_subprocess_exec(
        *command,
        text,
        cwd=tmp_path,
        env=os.environ | {"WORKER": f"127.0.0.1:{rig.port}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    for words in EXPECTED[number]:
        assert words in printed.decode()
