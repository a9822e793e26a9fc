"""What hatchling does beyond its own when it builds Fingerpost's wheel and sdist.

- The commit goes into `fingerpost/deploy/commit.txt`, which `fingerpost --version` shows. An
  editable installation has none: a checkout asks git each time.
- README.md becomes the page of a package index, where a link to a file of the tree leads nowhere.
  Where `FINGERPOST_REPOSITORY` names the repository's page, links and pictures lead to that
  version's files there; without it, such a link is plain text and such a picture is left out.

Both read the environment and the tree alone, so two builds of one commit are the same bytes. A
wheel that is built from the sdist gets all of this from the sdist.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CommitHook", "ReadmeHook", "find_commit", "for_an_index", "repository_page"]

_COMMIT: Final = "FINGERPOST_COMMIT"
_FILE: Final = "commit.txt"  # at the root of an sdist
_REPOSITORY: Final = "FINGERPOST_REPOSITORY"
_HASH: Final = re.compile(r"[0-9a-f]{7,64}(-dirty)?")
_PAGE: Final = re.compile(r"https://[^\s()<>]+")
_PICTURE: Final = re.compile(r"!\[[^\]]*\]\((?!https?://)([^)]+)\)")
_LINK: Final = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)]+)\)")


class CommitHook(BuildHookInterface[Any]):
    """Puts the commit into what is built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        commit = find_commit(Path(self.root), os.environ)
        if version == "editable" or commit is None:
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / _FILE
        file.write_text(f"{commit}\n", "ascii")
        sdist = self.target_name == "sdist"
        build_data["force_include"][str(file)] = _FILE if sdist else f"fingerpost/deploy/{_FILE}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


class ReadmeHook(MetadataHookInterface):
    """Makes the text of an index's page, and its links, from README.md."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        page = repository_page(os.environ)
        text = (Path(self.root) / "README.md").read_text("utf-8")
        if page is not None:
            metadata["urls"] = {
                "Repository": page,
                "Changes": f"{page}/blob/v{metadata['version']}/CHANGELOG.md",
            }
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_an_index(text, page, f"v{metadata['version']}"),
        }


def find_commit(root: Path, environment: Mapping[str, str]) -> str | None:
    """The commit that is built: what `FINGERPOST_COMMIT` says, else git, else the sdist's file.

    Raises:
        ValueError: the variable is not a commit's hash.
    """
    given = environment.get(_COMMIT)
    if given:
        if not _HASH.fullmatch(given):
            raise ValueError(
                f"{_COMMIT}={given!r} is not a commit: give 7 to 64 of the digits 0-9 and a-f, "
                "as git rev-parse HEAD prints them"
            )
        digits, dirty, _ = given.partition("-dirty")
        return digits[:12] + dirty
    if not (root / ".git").exists():
        try:
            return (root / _FILE).read_text("ascii").strip()
        except FileNotFoundError:
            return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(  # noqa: S603 - no input of others
            [*command, "--abbrev=12"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def repository_page(environment: Mapping[str, str]) -> str | None:
    """The URL of the repository's page, from `FINGERPOST_REPOSITORY`.

    Raises:
        ValueError: it is not an https URL.
    """
    given = environment.get(_REPOSITORY)
    if given and not _PAGE.fullmatch(given):
        raise ValueError(
            f"{_REPOSITORY}={given!r} is not a URL: give the repository's page, as https://HOST/NAME"
        )
    return given.rstrip("/") if given else None


def for_an_index(text: str, page: str | None, ref: str) -> str:
    """The Markdown with no link to a file beside it."""
    if page is None:
        return _LINK.sub(r"\1", _PICTURE.sub("", text))
    shown = _PICTURE.sub(
        lambda found: found[0].replace(f"({found[1]})", f"({page}/raw/{ref}/{found[1]})"), text
    )
    return _LINK.sub(rf"[\1]({page}/blob/{ref}/\2)", shown)
