"""Files that people write, and what may stand in their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from fingerpost.basics.config_file import MAX_BYTES, decode_toml, read_config, read_text
from fingerpost.errors import ConfigurationError


class _Form(msgspec.Struct):
    name: str = ""
    deep: object = None
    number: object = None


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfG\xc3\xa4nse\n")
    assert read_text(tmp_path / "a.txt") == "Gänse\n"
    (tmp_path / "link").symlink_to("a.txt")
    assert read_text(tmp_path / "link") == "Gänse\n"


def test_a_missing_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "none")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("pipe", "a named pipe"),
        ("folder", "a folder"),
        ("device", "a device"),
        ("socket", "a socket"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str, what: str) -> None:
    path = tmp_path / "versions.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    with pytest.raises(ConfigurationError, match=rf"versions\.toml is {what}.*: put a file there"):
        read_config(path)


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "big.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match=r"big\.toml has 1,099,511,627,776 bytes"):
        read_config(tmp_path / "big.toml")


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b" " * MAX_BYTES)
    assert len(read_config(path)) == MAX_BYTES
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ConfigurationError, match="1,000,001 bytes"):
        read_config(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_that_is_not_utf_8_is_placed(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "versions.toml"
    path.write_bytes(mark + b'policy = "all"\n# caf\xe9\n')
    offset = 20 + len(mark)
    with pytest.raises(
        ConfigurationError,
        match=rf"versions\.toml is not UTF-8 text: byte 0xe9 at offset {offset}, in line 2; save",
    ):
        read_text(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"deep = " + b"[" * 100_000, "nested too deep"),
        (b"number = " + b"9" * 10_000, "a.toml: "),
        (b"name = 3", r"a.toml: Expected `str`, got `int` - at `\$.name`"),
        (b"name = \xe9", "byte 0xe9 at offset 7"),
        (b"name", "a.toml: "),
    ],
)
def test_every_fault_of_toml_names_the_file(content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        decode_toml(content, _Form, "a.toml")
