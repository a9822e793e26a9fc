"""One run of the demo, whose model and images other tests use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Demo"]


@dataclass(frozen=True)
class Demo:
    """One run of `fingerpost demo --json`, and what it left."""

    figures: dict[str, Any]
    text: str
    model: Path
    images: list[Path]
    left_behind: list[str]
