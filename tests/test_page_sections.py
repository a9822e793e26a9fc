"""A page that several commands write keeps the sections of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.page_sections import others, write_section

pytestmark = pytest.mark.shell


def test_a_section_is_added_and_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nTable.\n\n## What was done\n\n- this\n")
    write_section(page, "Machines", ["Two rows."])
    write_section(page, "Kubernetes", ["Its rows.", "", "### More"])
    write_section(page, "Machines", ["Three rows."])
    assert page.read_text() == (
        "# Page\n\nTable.\n\n## What was done\n\n- this\n\n## Machines\n\nThree rows.\n\n"
        "## Kubernetes\n\nIts rows.\n\n### More\n"
    )


def test_a_page_that_is_written_anew_keeps_the_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert others(page, ("What was done",)) == ""
    page.write_text("# Page\n\n## What was done\n\n- this\n\n## Machines\n\nRows.\n")
    assert others(page, ("What was done",)) == "\n## Machines\n\nRows.\n"
