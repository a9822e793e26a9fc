"""A version is whole or absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.training.versions import next_version, publish, staging_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_next_number_follows_the_highest(tmp_path: Path) -> None:
    assert next_version(tmp_path) == 1
    for name in ("1", "7", "10", "latest", ".training-1"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 11


def test_a_number_taken_in_between_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    numbers = iter([1, 2])
    monkeypatch.setattr(
        "fingerpost.worker.training.versions.next_version", lambda out: next(numbers)
    )
    with staging_folder(tmp_path) as folder:
        assert publish(folder, tmp_path) == tmp_path / "2"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "models" / "flowers"

    def interrupted() -> None:
        with staging_folder(out) as folder:
            (folder / "saved_model.pb").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not out.exists()


def test_an_unwritable_place_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "flowers").write_text("a file stands in the way")
    with (
        pytest.raises(ConfigurationError, match="cannot be written to"),
        staging_folder(tmp_path / "flowers"),
    ):
        pass
