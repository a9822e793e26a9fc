"""The results file that a further run goes on with."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from fingerpost.deploy.results_log import ResultsLog
from fingerpost.errors import ConfigurationError


def test_what_was_written_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsLog(path) as log:
        log.write({"key": "a.png", "predictions": [["red", 0.9]]})
        log.write({"key": "b.png", "error": {"code": "broken_image", "message": "?"}})
    with ResultsLog(path) as log:
        assert (log.done, log.failed) == ({"a.png", "b.png"}, {"b.png"})
        log.write({"key": "b.png", "predictions": []})
    with ResultsLog(path) as log:
        assert (log.done, log.failed) == ({"a.png", "b.png"}, set())
    assert path.read_text().count("\n") == 3


def test_an_unfinished_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"key":"a.png"}\n{"key":"b.p')
    with ResultsLog(path) as log:
        assert log.done == {"a.png"}
        log.write({"key": "b.png"})
    assert path.read_bytes() == b'{"key":"a.png"}\n{"key":"b.png"}\n'


@pytest.mark.parametrize("content", [b"hello\n", b"[]\n", b'{"name":"a"}\n', b'{"key":1}\n'])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "precious.txt"
    path.write_bytes(b'{"key":"a.png"}\n' + content)
    with pytest.raises(ConfigurationError, match=r"precious\.txt, line 2, is not a result"):
        ResultsLog(path)
    assert path.read_bytes().endswith(content)


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsLog(path), pytest.raises(ConfigurationError, match="written by another run"):
        ResultsLog(path)
    with ResultsLog(path):
        pass


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        ResultsLog(tmp_path / "no" / "results.jsonl")


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ResultsLog(path) as log:
        log.write({"key": "a.png"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
        try:
            with pytest.raises(ConfigurationError, match="continues from here"):
                log.write({"key": "b.png"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with ResultsLog(path) as log:
        assert log.done == {"a.png"}


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        ResultsLog(Path("/dev/full"))
