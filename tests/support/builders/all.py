"""Every kind of model that the contract is tested on.

Each module beside this one has `BUILDERS: dict[str, Callable[[Path], None]]`: each
writes a tiny model into a folder that exists and is empty, with what it needs to be understood
(`model.toml`, `labels.txt`). The model takes images of 16 x 16 (or encoded ones) and gives
softmax(mean of each channel / 16), so that it tells red, green and blue apart; see `colours.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

BUILDERS: dict[str, Callable[[Path], None]] = {
    name: builder
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py"))
    if file.stem != Path(__file__).stem
    for name, builder in importlib.import_module(f"{__package__}.{file.stem}").BUILDERS.items()
}
