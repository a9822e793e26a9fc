"""`fingerpost caller add`: what it writes, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.security.callers.api_keys import hash_key
from fingerpost.security.callers.policy_editor import add_caller
from fingerpost.security.callers.policy_file import read_policy


def test_the_file_has_the_hash_and_never_the_key(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    added = add_caller(path, "web", tenant="radiology", role="view")
    assert added.made_tenant
    assert added.key not in path.read_text()
    assert added.key not in repr(added)
    assert path.stat().st_mode & 0o777 == 0o600
    entry = read_policy(path).by_key(hash_key(added.key))
    assert entry is not None
    assert (entry.caller.identity, entry.caller.tenant, entry.caller.role) == (
        "web",
        "radiology",
        "view",
    )


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    path.write_text("# ours\n[tenants.a]\nweight = 3  # of 10")  # no newline at the end
    path.chmod(0o640)
    assert not add_caller(path, "one", tenant="a", role="").made_tenant
    assert add_caller(path, "two", tenant="b.c", role="").made_tenant
    assert path.read_text().startswith("# ours\n[tenants.a]\nweight = 3  # of 10\n")
    assert path.stat().st_mode & 0o777 == 0o640
    policy = read_policy(path)
    assert [each.caller.tenant for each in policy.entries] == ["a", "b.c"]
    assert policy.entries[0].caller.rights.weight == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "tenant", "says"),
    [
        ("one", "a", "has a caller 'one' already"),
        ('x"\nrole = "admin', "a", "is not a valid name"),
        ("x", 'a"]\n[[callers]]', "is not a valid name"),
        ("", "a", "is not a valid name"),
    ],
)
def test_nothing_is_written_where_it_cannot_be(
    tmp_path: Path, name: str, tenant: str, says: str
) -> None:
    path = tmp_path / "callers.toml"
    add_caller(path, "one", tenant="a", role="")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=says):
        add_caller(path, name, tenant=tenant, role="")
    assert path.read_bytes() == before


def test_a_broken_file_is_not_made_worse(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    path.write_text("[[callers\n")
    with pytest.raises(ConfigurationError, match="callers.toml"):
        add_caller(path, "one", tenant="a", role="")
    assert path.read_text() == "[[callers\n"
    with pytest.raises(ConfigurationError, match="cannot be opened: No such file"):
        add_caller(tmp_path / "no" / "callers.toml", "one", tenant="a", role="")


@pytest.mark.shell
def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "callers.toml"
    code = (
        "import sys; from pathlib import Path\n"
        "from fingerpost.security.callers.policy_editor import add_caller\n"
        "path, name = Path(sys.argv[1]), sys.argv[2]\n"
        "for n in range(5): add_caller(path, name + str(n), tenant='t', role='')"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("a", "b", "c")
    ]
    assert [each.wait(60) for each in running] == [0, 0, 0]
    assert len(read_policy(path).entries) == 15


def test_a_link_stays_one(tmp_path: Path) -> None:
    path, link = tmp_path / "callers.toml", tmp_path / "link.toml"
    add_caller(path, "one", tenant="a", role="")
    link.symlink_to(path)
    add_caller(link, "two", tenant="a", role="")
    assert link.is_symlink()
    assert len(read_policy(path).entries) == 2
