"""No room on a disk: of the models, or for their copies. One line says it, with what to do."""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fingerpost.basics.backoff import Backoff
from fingerpost.errors import ConfigurationError, UntrustedModel
from fingerpost.security.keys import SigningKey
from fingerpost.security.signing.trusted_keys import TrustedKeys
from fingerpost.worker.models.signature import find_signed_model, sign_model
from fingerpost.worker.repository.load_failure import LoadFailure, too_little_room
from fingerpost.worker.repository.sources import ModelRoot
from fingerpost.worker.repository.versions import lifecycle
from fingerpost.worker.repository.versions.policy import VersionPolicy
from tests.support.repository import write_version
from tests.support.small_disk import small_disk
from tests.support.waiting import until

CASES: dict[str, tuple[Exception, str, bool, bool]] = {
    "known": (ConfigurationError("a damaged file"), "a damaged file", False, False),
    "unforeseen": (KeyError("x"), "KeyError: 'x'", True, False),
    "not trusted": (UntrustedModel("not signed"), "untrusted_model: not signed", False, False),
    "a full disk": (
        OSError(errno.ENOSPC, "No space left on device", "/a"),
        "/a cannot be written: No space left on device; make room, or name another folder for "
        "temporary files (TMPDIR)",
        False,
        True,
    ),
    "a framework's": (
        ConfigurationError("it does not run (write: No space left on device)"),
        "it does not run (write: No space left on device); make room, or name another folder for "
        "temporary files (TMPDIR)",
        False,
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_for_each_error(case: str) -> None:
    error, text, unforeseen, passing = CASES[case]
    wanted = LoadFailure(text=text, unforeseen=unforeseen, passing=passing)
    assert LoadFailure.of(error, None) == wanted
    assert LoadFailure.of(error, Path("/not/there")) == wanted


@pytest.mark.shell
def test_a_model_on_a_full_disk_may_be_a_part_of_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    error = ConfigurationError("flowers: Protobuf parsing failed")
    with small_disk(models, 4000):
        assert LoadFailure.of(error, models).text == "flowers: Protobuf parsing failed"
        assert f"only 4 MB are free beside {models}: " in too_little_room(models)
        with pytest.raises(OSError, match="No space|too large"):
            for part in range(9):
                (models / str(part)).write_bytes(b"x" * 900_000)
        assert LoadFailure.of(error, models).text == (
            f"flowers: Protobuf parsing failed; the disk of {models} is full, so perhaps only a "
            "part of the files is there: make room, and copy them again"
        )
    assert not too_little_room(None)


async def test_a_version_is_loaded_once_there_is_room_for_its_copy(
    tmp_path: Path, serve: Any, ask: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version before serves meanwhile, and nobody has to ask for another try."""
    key = SigningKey.generate()
    flowers = tmp_path / "models" / "flowers"
    write_version(flowers, 1)
    sign_model(flowers / "1", key)
    write_version(tmp_path / "new", 2)
    (tmp_path / "new/2/weights.bin").write_bytes(b"x" * 350_000)
    sign_model(tmp_path / "new/2", key, name="flowers", version="2")
    disk = tmp_path / "temporary"
    monkeypatch.setattr(lifecycle, "_BACKOFF", Backoff(base_s=0.1, cap_s=0.1))
    with small_disk(disk, 400) as make_room, caplog.at_level(logging.ERROR):
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        find = partial(find_signed_model, keys=TrustedKeys(key.public, {}))
        source = ModelRoot(tmp_path / "models", policy=VersionPolicy(latest=1), find=find)
        worker = await serve(source)
        assert await ask(worker, "flowers") == ("1", "v1")
        (disk / "filler").write_bytes(b"x" * 90_000)
        shutil.move(tmp_path / "new/2", flowers / "2")
        await until(lambda: "cannot be copied to" in caplog.text)
        assert "the copy of a model needs room there (TMPDIR" in caplog.text
        assert await ask(worker, "flowers") == ("1", "v1")
        make_room()

        async def updated() -> bool:
            return await ask(worker, "flowers") == ("2", "v2")

        await until(updated)
