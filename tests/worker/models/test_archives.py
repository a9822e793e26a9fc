"""Archives that unfold to far more than they are."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models import archives
from fingerpost.worker.models.archives import check_archive
from fingerpost.worker.models.files import find_model

pytestmark = pytest.mark.slow

_MB = 1 << 20


def _bomb(path: Path, size: int, name: str = "weights") -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as entry,
    ):
        for _ in range(size // _MB):
            entry.write(bytes(_MB))
    return path


@pytest.mark.parametrize("suffix", ["pt2", "pt", "keras", "torchscript"])
def test_a_bomb_is_refused_before_it_is_loaded(tmp_path: Path, suffix: str) -> None:
    bomb = _bomb(tmp_path / f"flowers.{suffix}", 300 * _MB)
    with pytest.raises(ConfigurationError, match=r"bytes and unfolds to 314,572,8\d\d or more"):
        find_model(bomb)
    folder = tmp_path / "flowers"
    folder.mkdir()
    bomb.rename(folder / bomb.name)
    with pytest.raises(ConfigurationError, match="save the model without compression"):
        find_model(folder)


def test_a_bomb_beside_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    _bomb(tmp_path / "weights.npz", 300 * _MB)
    with pytest.raises(ConfigurationError, match=r"weights\.npz has"):
        find_model(tmp_path, name="flowers")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_bomb_in_an_archive_in_the_archive(tmp_path: Path, method: int) -> None:
    inner = _bomb(tmp_path / "inner.pt", 300 * _MB)
    with zipfile.ZipFile(tmp_path / "a.pt2", "w", method) as archive:
        archive.write(inner, "data/weights/inner.pt")
    with pytest.raises(ConfigurationError, match=r"a\.pt2 has .* unfolds to 31\d,"):
        check_archive(tmp_path / "a.pt2")


def test_overlapping_entries_count_each(tmp_path: Path) -> None:
    """All names may point at the same bytes (Fifield, "A better zip bomb", WOOT 2019)."""
    _bomb(tmp_path / "a.pt", 100 * _MB)
    content = (tmp_path / "a.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (info,) = archive.infolist()
    start = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    record, tail = content[start:end], bytearray(content[end:])
    tail[8:12] = (4).to_bytes(2, "little") * 2
    tail[12:16] = (4 * len(record)).to_bytes(4, "little")
    (tmp_path / "a.pt").write_bytes(content[:start] + 4 * record + tail)
    assert info.file_size == 100 * _MB
    with pytest.raises(ConfigurationError, match="unfolds to 419,430,400"):
        check_archive(tmp_path / "a.pt")


def test_honest_archives_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_archive(_bomb(tmp_path / "small.keras", 200 * _MB))
    monkeypatch.setattr(archives, "MIN_LIMIT_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "stored.pt", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("weights", bytes(10 * _MB))
    check_archive(tmp_path / "stored.pt")
    (tmp_path / "no.pt").write_bytes(b"not an archive")
    check_archive(tmp_path / "no.pt")


def test_a_damaged_directory_is_a_typed_error(tmp_path: Path) -> None:
    content = bytearray(_bomb(tmp_path / "a.pt", _MB).read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at : at + 4] = b"XXXX"
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"a\.pt is a damaged archive: Bad magic number"):
        check_archive(tmp_path / "a.pt")
