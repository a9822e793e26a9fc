"""The results file that a further run goes on with."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from fingerpost.deploy.results_log import ResultsLog, ResultsOf
from fingerpost.errors import ConfigurationError

RUN = ResultsOf(model="digits@stable")


def test_what_was_written_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsLog(path, RUN) as log:
        log.write("a.png", {"predictions": [["red", 0.9]]})
        log.write("b.png", {"error": {"code": "broken_image", "message": "?"}})
    with ResultsLog(path, RUN) as log:
        assert (log.done, log.failed) == ({"a.png", "b.png"}, {"b.png"})
        log.write("b.png", {"predictions": []})
    with ResultsLog(path, RUN) as log:
        assert (log.done, log.failed) == ({"a.png", "b.png"}, set())
    assert path.read_text().count("\n") == 3


def test_an_unfinished_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"key":"a.png"}\n{"key":"b.p')
    with ResultsLog(path, RUN) as log:
        assert log.done == {"a.png"}
        log.write("b.png", {})
    first, second = path.read_bytes().splitlines()
    assert first == b'{"key":"a.png"}'
    assert json.loads(second) == {"key": "b.png", "run": {"model": "digits@stable"}}


@pytest.mark.parametrize("content", [b"hello\n", b"[]\n", b'{"name":"a"}\n', b'{"key":1}\n'])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "precious.txt"
    path.write_bytes(b'{"key":"a.png"}\n' + content)
    with pytest.raises(ConfigurationError, match=r"precious\.txt, line 2, is not a result"):
        ResultsLog(path, RUN)
    assert path.read_bytes().endswith(content)


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsLog(path, RUN), pytest.raises(ConfigurationError, match="written by another run"):
        ResultsLog(path, RUN)
    with ResultsLog(path, RUN):
        pass


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        ResultsLog(tmp_path / "no" / "results.jsonl", RUN)


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ResultsLog(path, RUN) as log:
        log.write("a.png", {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
        try:
            with pytest.raises(ConfigurationError, match="continues from here"):
                log.write("b.png", {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with ResultsLog(path, RUN) as log:
        assert log.done == {"a.png"}


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        ResultsLog(Path("/dev/full"), RUN)


@pytest.mark.parametrize(
    ("other", "was"),
    [
        (ResultsOf(model="flowers"), "--model flowers --top 5"),
        (ResultsOf(model="digits"), "--model digits --top 5"),
        (ResultsOf(model="digits@stable", top=1), "--model digits@stable --top 1"),
        (ResultsOf(model="digits@stable", shrink=True), "--model digits@stable --top 5 --shrink"),
    ],
)
def test_results_of_another_model_or_other_options_are_not_continued(
    tmp_path: Path, other: ResultsOf, was: str
) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsLog(path, other) as log:
        log.write("a.png", {"error": {"code": "broken_image"}})
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=f"line 1, is a result of {was}, and this run is"):
        ResultsLog(path, RUN)
    assert path.read_bytes() == before


def test_results_of_release_0_1_0_are_continued_if_their_model_fits(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"key":"a.png","model":"digits"}\n{"key":"b.png","error":{"code":"x"}}\n')
    with ResultsLog(path, RUN) as log:
        assert (log.done, log.failed) == ({"a.png", "b.png"}, {"b.png"})
    with pytest.raises(ConfigurationError, match="line 1, is a result of --model digits, and"):
        ResultsLog(path, ResultsOf(model="flowers"))


def test_a_name_that_is_not_utf_8_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    names = {os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"caf\xe8.png"), r"caf\xe9.png", "café.png"}
    with ResultsLog(path, RUN) as log:
        for name in sorted(names):
            log.write(name, {})
    with ResultsLog(path, RUN) as log:
        assert log.done == names


@pytest.mark.parametrize("exact", ["?", "YQ"])
def test_a_name_whose_base64_is_damaged(tmp_path: Path, exact: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"key": "a", "key_base64": exact}) + "\n")
    with pytest.raises(ConfigurationError, match="is not a result .*base64"):
        ResultsLog(path, RUN)
