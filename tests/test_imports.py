"""No import circle between modules or packages, also none through `if TYPE_CHECKING`.

The import contracts hold the same of what is imported at run time.
"""

from __future__ import annotations

import graphlib

import grimp
import pytest

pytestmark = pytest.mark.shell

ROOMS = [
    "errors",
    "basics",
    "security",
    "registry",
    "client",
    "proxy",
    "worker",
    "deploy",
    "testing",
]
GRAPH = grimp.build_graph(
    *(f"fingerpost.{room}" for room in ROOMS), exclude_type_checking_imports=False, cache_dir=None
)
PACKAGES = sorted({module.rpartition(".")[0] for module in GRAPH.modules})


@pytest.mark.parametrize("package", PACKAGES)
def test_the_children_of_a_package_import_each_other_in_one_direction(package: str) -> None:
    def child_of(module: str) -> str | None:
        inside = module.startswith(f"{package}.")
        return module[len(package) + 1 :].partition(".")[0] if inside else None

    imports: dict[str, set[str]] = {}
    for module in GRAPH.modules:
        importer = child_of(module)
        if importer is None:
            continue
        imported = {child_of(each) for each in GRAPH.find_modules_directly_imported_by(module)}
        imports.setdefault(importer, set()).update(
            each for each in imported if each not in (None, importer)
        )
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which shows the circle
