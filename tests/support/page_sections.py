"""Sections of a page that several commands write, each its own."""

from __future__ import annotations

from pathlib import Path

__all__ = ["others", "write_section"]


def _sections(text: str) -> list[str]:
    """The page's parts: what comes before the first heading `## `, and each section."""
    first, *rest = text.split("\n## ")
    return [first, *(f"## {each}" for each in rest)]


def others(page: Path, own: tuple[str, ...]) -> str:
    """What of a page is not in the sections named `own`, and not before its first section.

    Whoever writes the page anew puts this at its end.
    """
    if not page.exists():
        return ""
    kept = [
        each.rstrip("\n") + "\n"
        for each in _sections(page.read_text("utf-8"))[1:]
        if each.partition("\n")[0].removeprefix("## ") not in own
    ]
    return "".join(f"\n{each}" for each in kept)


def write_section(page: Path, title: str, lines: list[str]) -> None:
    """Put a section in the place of the one of that title, or at the end; the rest stays."""
    section = "\n".join([f"## {title}", "", *lines])
    parts = _sections(page.read_text("utf-8"))
    titles = [each.partition("\n")[0] for each in parts]
    if f"## {title}" in titles[1:]:
        parts[titles.index(f"## {title}", 1)] = section
    else:
        parts.append(section)
    page.write_text("\n\n".join(each.strip("\n") for each in parts) + "\n", "utf-8")
