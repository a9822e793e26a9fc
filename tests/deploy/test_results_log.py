"""The results file that a further run goes on with."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from fingerpost.deploy.results_log import Journal
from fingerpost.errors import ConfigurationError


def test_what_was_written_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path) as journal:
        journal.write({"key": "a.png", "predictions": [["red", 0.9]]})
        journal.write({"key": "b.png", "error": {"code": "broken_image", "message": "?"}})
    with Journal(path) as journal:
        assert (journal.done, journal.failed) == ({"a.png", "b.png"}, {"b.png"})
        journal.write({"key": "b.png", "predictions": []})
    with Journal(path) as journal:
        assert (journal.done, journal.failed) == ({"a.png", "b.png"}, set())
    assert path.read_text().count("\n") == 3


def test_an_unfinished_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"key":"a.png"}\n{"key":"b.p')
    with Journal(path) as journal:
        assert journal.done == {"a.png"}
        journal.write({"key": "b.png"})
    assert path.read_bytes() == b'{"key":"a.png"}\n{"key":"b.png"}\n'


@pytest.mark.parametrize("content", [b"hello\n", b"[]\n", b'{"name":"a"}\n', b'{"key":1}\n'])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "precious.txt"
    path.write_bytes(b'{"key":"a.png"}\n' + content)
    with pytest.raises(ConfigurationError, match=r"precious\.txt, line 2, is no result"):
        Journal(path)
    assert path.read_bytes().endswith(content)


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path), pytest.raises(ConfigurationError, match="written by another run"):
        Journal(path)
    with Journal(path):
        pass


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        Journal(tmp_path / "no" / "results.jsonl")


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.write({"key": "a.png"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
        try:
            with pytest.raises(ConfigurationError, match="goes on from here"):
                journal.write({"key": "b.png"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Journal(path) as journal:
        assert journal.done == {"a.png"}


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no file"):
        Journal(Path("/dev/full"))
