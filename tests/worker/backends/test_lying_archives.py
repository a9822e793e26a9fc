"""An archive whose directory declares less than its entries unfold to."""

from __future__ import annotations

import contextlib
import resource
import struct
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.models.files import ManifestOverrides, find_model
from tests.support.later import later

if TYPE_CHECKING:
    import torch

    from fingerpost.worker.backends import torch as backend
else:
    torch = later("torch")
    backend = later("fingerpost.worker.backends.torch")

_MB = 1 << 20


def _save(kind: str, path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 1000)).eval()
    example = torch.zeros(1, 3, 8, 8)
    if kind == "pt2":
        torch.export.save(torch.export.export(module, (example,)), path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            traced: Any = torch.jit.trace(module, example)
            traced.save(path)


def _lie(path: Path, out: Path, unfolded_mb: int) -> None:
    """Copy an archive, its largest entry unfolding to `unfolded_mb`, declared as before."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        largest = max(entries, key=lambda each: each.file_size)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as copy:
            for each in entries:
                if each is not largest:
                    copy.writestr(each.filename, archive.read(each))
                    continue
                with copy.open(each.filename, "w") as entry:
                    for _ in range(unfolded_mb):
                        entry.write(bytes(_MB))
    true, declared = struct.pack("<L", unfolded_mb * _MB), struct.pack("<L", largest.file_size)
    content = out.read_bytes()
    assert content.count(true) >= 2, "in the entry's own header and in the directory"
    out.write_bytes(content.replace(true, declared))


@pytest.mark.parametrize("kind", ["pt2", "pt"])
def test_memory_stays_what_was_declared(tmp_path: Path, kind: str) -> None:
    _save(kind, tmp_path / f"good.{kind}")
    size = ManifestOverrides(image_size=8)
    files = find_model(tmp_path / f"good.{kind}", name="good", overrides=size)
    backend.load(files, LoadConfig()).close()  # PyTorch's own memory is taken
    _lie(tmp_path / f"good.{kind}", tmp_path / f"bad.{kind}", 512)
    lying = find_model(tmp_path / f"bad.{kind}", name="bad", overrides=size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What was declared may be enough for the model; then the rest is never unfolded.
    with contextlib.suppress(ConfigurationError):
        backend.load(lying, LoadConfig()).close()
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 100_000
