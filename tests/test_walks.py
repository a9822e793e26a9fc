"""The walks of docs/first-cluster/ as text; the targets that have the engines run them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.walks import Shell, matches, steps_of, walk

pytestmark = pytest.mark.shell

FOLDER = Path(__file__).parents[1] / "docs" / "first-cluster"
PAGES = sorted(FOLDER.glob("*.md"))
PAGE = """\
# A page

    shown only

## One
```sh
a=1
cd /
```

## Two
```sh
echo "$a in $PWD"; cat
```

```text
1 in ...
```
"""


def test_a_page_has_steps_and_what_they_print() -> None:
    one, two = steps_of(PAGE)
    assert (one.section, one.line, one.commands, one.expected) == ("One", 7, "a=1\ncd /\n", "")
    assert (two.section, two.expected) == ("Two", "1 in ...\n")
    with pytest.raises(ValueError, match="line 3: an output without its step: 3"):
        steps_of("Text.\n```text\n3\n```\n")


@pytest.mark.parametrize(
    ("expected", "output", "right"),
    [
        ("a 1\n", "a   1", True),
        ("a ...\n", "a\n1\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n", "", False),
        ('[["bright",0.90...]]', '[["bright",0.901961]]\n', True),
        ('[["bright",0.90...]]', '[["dark",0.901961]]', False),
    ],
)
def test_what_a_step_prints_is_compared(expected: str, output: str, right: bool) -> None:
    assert matches(expected, output) is right


def test_a_shell_keeps_its_state_and_reads_no_further_step(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, "utf-8")
    with Shell() as shell:
        assert walk(page, shell) >= 0
        assert shell.run("printf %s $a") == "1"


def test_a_failed_command_ends_the_walk(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\necho before; false\necho after\n```\n", "utf-8")
    with Shell() as shell, pytest.raises(AssertionError, match="a command failed") as failed:
        walk(page, shell)
    assert "before\n" in str(failed.value)
    assert "\nafter\n" not in str(failed.value)
    with Shell() as shell, pytest.raises(AssertionError, match="not done within 0.2 s"):
        shell.run("sleep 60", within_s=0.2)


def test_another_output_ends_the_walk(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\necho 2\n```\n\n```text\n1\n```\n", "utf-8")
    with Shell() as shell, pytest.raises(AssertionError, match=r"page.md:2 printed\n2\n"):
        walk(page, shell)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_walk_goes_from_nothing_to_an_alert(page: Path) -> None:
    steps = steps_of(page.read_text("utf-8"))
    titles = " | ".join(dict.fromkeys(step.section.lower() for step in steps))
    assert re.search("model.*first image.*canary.*drain.*alert", titles), titles
    for step in steps:
        checked = subprocess.run(
            ["bash", "-n"], input=step.commands, text=True, capture_output=True
        )
        assert not checked.stderr, f"{page.name}:{step.line}"
