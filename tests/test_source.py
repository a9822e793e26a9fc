"""The house rules that a program can check: sizes, circles, and that nothing stands twice."""

from __future__ import annotations

import functools
import os
import subprocess
from collections import Counter, defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("registry", "client", "proxy", "worker", "deploy")
MOST_LINES = 400
RUN = 12


# Pages load it as a single file, without a build step.
WHOLE = "client/fingerpost/client/javascript/fingerpost.js"
# Programs outside the rooms: examples, CI, hooks of the documentation's site.
OTHERS = ("benchmarks", "examples", ".ci", "docs/site")


def sources(*folders: str) -> list[Path]:
    """Python, JavaScript and TypeScript files, and programs of any language without a suffix."""
    files = (path for each in folders for path in (ROOT / each).rglob("*") if path.is_file())
    return sorted(path for path in files if _is_source(path))


def _is_source(path: Path) -> bool:
    if path.suffix:
        return path.suffix in (".py", ".js", ".mjs", ".ts")
    with path.open("rb") as file:
        return file.read(2) == b"#!"


@functools.cache
def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def test_programs_of_users_see_the_types_of_every_package() -> None:
    """What a package without the mark says is `Any` to them, and so is all that it decorates."""
    packages = [each for room in ROOMS for each in (ROOT / room / "fingerpost").iterdir()]
    packages = [each for each in packages if each.is_dir() and each.name != "__pycache__"]
    assert {"basics", "security", *ROOMS} <= {each.name for each in packages}
    assert not [each.name for each in packages if not (each / "py.typed").is_file()]


def test_modules_hold_one_noun():
    sizes = {
        path.relative_to(ROOT).as_posix(): len(_lines(path))
        for path in sources(*ROOMS, *OTHERS, "tests")
    }
    too_long = [path for path, lines in sizes.items() if lines > MOST_LINES]
    assert too_long == [WHOLE]


def test_no_run_of_lines_stands_twice():
    texts = {
        path: [(n, line.strip()) for n, line in enumerate(_lines(path), 1) if line.strip()]
        for path in sources(*ROOMS, *OTHERS)
    }
    times = Counter(line for lines in texts.values() for _, line in lines)
    places = defaultdict(list)
    for path, lines in texts.items():
        like = 0  # so many lines before this one stand elsewhere, too: few are
        for at, (number, line) in enumerate(lines):
            like = like + 1 if times[line] > 1 else 0
            if like >= RUN:
                run = tuple(line for _, line in lines[at + 1 - RUN : at + 1])
                places[run].append(f"{path.relative_to(ROOT)}:{number}")
    assert not [where for where in places.values() if len(where) > 1]


def test_no_circle_even_under_type_checking():
    """The import contracts leave out what stands under `if TYPE_CHECKING`; this does not."""
    rooms = [f"fingerpost.{room}" for room in (*ROOMS, "basics", "security", "errors", "testing")]
    graph = grimp.build_graph(*rooms, exclude_type_checking_imports=False, cache_dir=None)
    for package in sorted(graph.modules):
        children = graph.find_children(package)
        imports: dict[str, set[str]] = {child: set() for child in children}
        for child in children:
            within = {child, *graph.find_descendants(child)}
            for module in within:
                for other in graph.find_modules_directly_imported_by(module):
                    imports[child] |= {
                        each
                        for each in children - {child}
                        if other == each or other.startswith(f"{each}.")
                    }
        TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


@pytest.mark.shell
def test_make_lets_python_keep_what_it_compiled():
    """Else every test module is rewritten in each run, and each process compiles its imports."""
    show = subprocess.run(
        ["make", "--no-print-directory", "-f", "Makefile", "-f", "-", "show"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        input="show:\n\t@env\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\nPATH=" in f"\n{show.stdout}"
    assert "PYTHONDONTWRITEBYTECODE" not in show.stdout
