"""What `mkdocs build` needs beside docs/: pages from elsewhere in the tree, or made from code.

README.md, CHANGELOG.md and others stand where a forge shows them, and link to each other as files.
Here they become pages of the site, and links between files become links between pages, so that one
text serves both and a dead link fails the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]

# Files of the tree that are pages of the site.
ELSEWHERE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "security-policy.md",  # security.md would be the same file on macOS
    "deploy/ansible/README.md": "deploy/ansible.md",
    "deploy/ansible/ansible_collections/fingerpost/cluster/README.md": "deploy/collection.md",
    "deploy/consul/README.md": "deploy/consul.md",
    "deploy/monitoring/README.md": "deploy/monitoring.md",
    "deploy/systemd/README.md": "deploy/systemd.md",
    "deploy/zookeeper/README.md": "deploy/zookeeper.md",
}
# Folders that a text may link to.
FOLDERS: Final = {
    "examples": "examples.md",
    "docs/decisions": "decisions/index.md",
    "docs/benchmarks": "benchmarks/records.md",
}

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not hold."""
    generated = {page: (ROOT / path).read_text("utf-8") for path, page in ELSEWHERE.items()}
    generated["examples.md"] = _examples()
    generated["decisions/index.md"] = _decisions()
    generated["benchmarks/records.md"] = _records()
    generated["reference/cli.md"] = _command_line()
    for page, text in generated.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the tree into links between pages."""
    here = page.file.src_uri
    origin = {page: path for path, page in ELSEWHERE.items()}.get(here, f"docs/{here}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        found = ELSEWHERE.get(path) or FOLDERS.get(path)
        if found is None and path.startswith("docs/"):
            found = path.removeprefix("docs/")
        if found is None:
            return match[0]  # MkDocs says that there is no such page
        return f"{text}{posixpath.relpath(found, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(link, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remove the `::` of docstrings, which announces a block of code and is not Markdown."""
    return html.replace("<p>::</p>", "")


def _examples() -> str:
    parts = ["# Examples\n"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        code = path.read_text("utf-8")
        parts.append(f"## {path.name}\n\n```python\n{code}```\n")
    return "\n".join(parts)


def _decisions() -> str:
    rows = []
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        rows.append(f"- [{title}]({path.name})")
    return (
        "# Decisions\n\nWhat was decided, why, and what was rejected.\n\n" + "\n".join(rows) + "\n"
    )


def _records() -> str:
    paths = sorted((ROOT / "docs" / "benchmarks").glob("*.json"))
    rows = [f"- [{path.name}]({path.name})" for path in paths]
    return (
        "# Records\n\nWhat each benchmark measured, as it was written by it.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def _command_line() -> str:
    """The `--help` of every command."""
    import typer.main
    from typer.cli import get_docs_for_click

    from fingerpost.deploy.cli import add_commands, app

    add_commands()
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="fingerpost")
    return get_docs_for_click(obj=command, ctx=context, name="fingerpost", title="Command line")
