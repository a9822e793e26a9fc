"""The wheel and the sdist: the same bytes each time, with the commit, fit for a package index."""

from __future__ import annotations

import email.message
import email.parser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.system

_ROOT = Path(__file__).parents[2]
_PAGE = "https://forge.example.org/fingerpost"


class Built(NamedTuple):
    """What one build made, and the commit that it was made from."""

    wheel: Path
    sdist: Path
    commit: str


def copy_of_the_tree(folder: Path) -> str:
    """A repository of what is in this one, in one commit that is the same each time; its hash."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_ROOT / name, folder / name)
    fixed = {
        f"GIT_{who}_{what}": "x@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00:00Z")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "x")):
        subprocess.run(
            ["git", *command], cwd=folder, env={**os.environ, **fixed, **dates}, check=True
        )
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def build(
    root: Path, out: Path, *targets: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    wanted = [argument for target in targets for argument in ("-t", target)]
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *wanted, "-d", out],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Built]:
    """Two builds of one commit: in other folders, with another umask, time zone and locale."""
    made = []
    for name, mask, more in (
        ("one", 0o022, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
        ("another", 0o077, {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}),
    ):
        folder = tmp_path_factory.mktemp(name)
        (folder / "tree").mkdir()
        before = os.umask(mask)
        try:
            commit = copy_of_the_tree(folder / "tree")
            out = folder / "dist"
            done = build(
                folder / "tree", out, "wheel", "sdist", FINGERPOST_REPOSITORY=_PAGE, **more
            )
        finally:
            os.umask(before)
        assert done.returncode == 0, done.stderr
        (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
        made.append(Built(wheel, sdist, commit))
    return made[0], made[1]


def test_two_builds_of_a_commit_are_the_same_bytes(two: tuple[Built, Built]) -> None:
    one, another = two
    assert one.commit == another.commit
    for first, second in ((one.wheel, another.wheel), (one.sdist, another.sdist)):
        assert first.name == second.name
        assert sha256(first) == sha256(second)


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(
    two: tuple[Built, Built], tmp_path: Path
) -> None:
    """So what an index's users build is what was tested; the sdist brings its commit and page."""
    with tarfile.open(two[0].sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    done = build(tree, tmp_path / "dist", "wheel")
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "dist" / two[0].wheel.name) == sha256(two[0].wheel)


def test_a_file_that_is_in_no_commit_is_not_published(tmp_path: Path) -> None:
    """`make dist` ends before it builds anything."""
    copy_of_the_tree(tmp_path)
    (tmp_path / "release.key").write_text("secret")
    done = subprocess.run(
        [tmp_path / "deploy/release/dist", sys.executable, "dist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "release.key"
    assert "commit, ignore or remove them first" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_the_wheel_knows_its_commit(two: tuple[Built, Built]) -> None:
    with zipfile.ZipFile(two[0].wheel) as wheel:
        assert wheel.read("fingerpost/deploy/commit.txt") == f"{two[0].commit[:12]}\n".encode()


def test_the_page_of_an_index(two: tuple[Built, Built]) -> None:
    metadata = metadata_of(two[0].wheel)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL") == [
        f"Repository, {_PAGE}",
        f"Changes, {_PAGE}/blob/v{metadata['Version']}/CHANGELOG.md",
    ]
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert f"({_PAGE}/raw/v{metadata['Version']}/docs/two-steps.svg)" in page
    assert f"]({_PAGE}/blob/v{metadata['Version']}/docs/security.md)" in page
    assert not [target for target in targets_of(page) if not target.startswith("https://")]


def test_the_wheel_holds_the_package_alone(two: tuple[Built, Built]) -> None:
    with zipfile.ZipFile(two[0].wheel) as wheel:
        tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert len(tops) == 2
    assert {name.partition("-")[0] for name in tops} == {"fingerpost"}


def test_without_a_repository_no_link_leads_nowhere(tmp_path: Path) -> None:
    """And the commit may be given, where there is no git, as in the build of an image."""
    copy_of_the_tree(tmp_path)
    shutil.rmtree(tmp_path / ".git")
    done = build(tmp_path, tmp_path / "dist", "wheel", FINGERPOST_COMMIT="0123456789abcdef")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    metadata = metadata_of(wheel)
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert not [target for target in targets_of(page) if not target.startswith("https://")]
    assert "[docs/security.md]" not in page
    assert "docs/security.md" in page
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("fingerpost/deploy/commit.txt") == b"0123456789ab\n"
    for key, value in (("FINGERPOST_COMMIT", "main"), ("FINGERPOST_REPOSITORY", "forge")):
        refused = build(tmp_path, tmp_path / "wrong", "wheel", **{key: value})
        assert refused.returncode
        assert f"{key}={value!r} is not a" in refused.stderr
        assert not list((tmp_path / "wrong").glob("*.whl"))


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        return email.parser.Parser().parsestr(archive.read(name).decode())


def targets_of(markdown: str) -> list[str]:
    """Where the links and pictures of a text lead; code is not looked at."""
    prose = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    return re.findall(r"\]\(([^)]+)\)", prose)
