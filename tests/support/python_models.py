"""Model folders of Python classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_python_model"]


def write_python_model(
    folder: Path, code: str, target: str, *, labels: Iterable[str] = (), more: str = ""
) -> Path:
    """Make the folder of a model, whose name is the model's.

    Args:
        folder: made with its parents.
        code: the module.
        target: `module:Class`; the code is written to `module.py`.
        labels: a file of them; without any there is none.
        more: further lines of `model.toml`.
    """
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(f'framework = "python"\nclass = "{target}"\n{more}')
    (folder / f"{target.partition(':')[0]}.py").write_text(code)
    if text := "".join(f"{label}\n" for label in labels):
        (folder / "labels.txt").write_text(text)
    return folder
