"""docs/benchmarks.md says what was measured, and nothing else."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from benchmarks import __main__ as command
from benchmarks.document.__main__ import PAGE
from benchmarks.document.losses import losses
from benchmarks.document.page import page
from benchmarks.document.records import KEPT, Machine, Record, Verdict, read_records
from benchmarks.harness.results import RESULTS_VARIABLE, Goal, in_turn, report
from benchmarks.rows import ROWS

RECORD = Record(
    name="lookups",
    title="Lookups a second",
    date="2026-11-01",
    machine=Machine(cpus=2, system="Debian", python="3.11"),
    versions={"Consul": "1.8.7"},
    settings={"rounds": 3, "workers": [1, 2]},
    figures={"Fingerpost, one proxy": {"CPU us": 40.0}, "seaport": {"CPU us": 30.0}},
    goals=(
        Verdict(claim="proxy / Consul", ratio=3.5, bound=3.0, at_most=False, kept=True),
        Verdict(claim="proxy / seaport", ratio=0.5, bound=1.0, at_most=False, kept=False),
    ),
    notes=("Consul tells more.",),
)


def test_the_page_is_what_the_kept_records_give():
    """If not: `python -m benchmarks.document`."""
    assert PAGE.read_text() == page(ROWS, read_records())


def test_every_kept_record_and_plot_belongs_to_a_row():
    kept = {file.stem for file in KEPT.glob("*.json")}
    assert kept <= {name for row in ROWS for name in row.results}
    for row in ROWS:
        if row.plot is not None and kept.intersection(row.results):
            assert (KEPT / f"{row.plot}.svg").exists()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_rows_command_is_there(row):
    assert callable(
        importlib.import_module(f"{row.module}.__main__" if is_package(row) else row.module).main
    )


def is_package(row):
    return (Path(*row.module.split(".")) / "__main__.py").exists()


def test_what_was_not_measured_is_said_so():
    text = page(ROWS, {})
    assert text.count("\nNot measured yet.\n") == len(ROWS)
    assert text.count("| not measured yet |") == len(ROWS)


def test_a_section_has_figures_verdicts_and_circumstances():
    row = next(row for row in ROWS if row.name == "lookups")
    text = page([replace(row, root=True)], {"lookups": RECORD})
    for line in (
        "| [Lookups](#lookups) | 1 of 2 | missed: proxy / seaport |",
        "| seaport | 30 |",
        "| proxy / Consul | 3.5 | >= 3 | met |",
        "| proxy / seaport | 0.5 | >= 1 | **missed** |",
        "Consul tells more.",
        "    sudo make bench-lookups",
    ):
        assert f"\n{line}\n" in text
    assert (
        "Measured 2026-11-01 on 2 cores, Debian, Python 3.11, Consul 1.8.7. "
        "Settings: rounds 3, workers 1 2." in text
    )


def test_a_loss_is_told_while_the_figures_bear_it_out():
    told = "A lookup in Node.js costs less"
    assert told in losses({"lookups": RECORD})
    better = {"Fingerpost, one proxy": {"CPU us": 20.0}, "seaport": {"CPU us": 30.0}}
    assert told not in losses({"lookups": msgspec.structs.replace(RECORD, figures=better)})
    assert told not in losses({})


@pytest.mark.frameworks
def test_the_plots_are_the_same_each_time(tmp_path):
    pairs = {f"{n} workers, {unit}": n * 20.0 for n in (1, 2) for unit in ("Mbit/s", "images/s")}
    growth = {
        "1 worker": {"pick us": 1.0},
        "1,000 workers": {"pick us": 8.0},
        "100 workers, 1,000 clients": {"proxy CPU %": 2.0, "Consul CPU %": 1.0},
    }
    records = {
        "bandwidth": msgspec.structs.replace(
            RECORD,
            settings={"link_mbit": 20.0, "workers": [1, 2], "image_bytes": 640_000},
            figures={"direct": pairs, "nginx": pairs},
        ),
        "worker-mobilenet": msgspec.structs.replace(
            RECORD, figures={"limit": {"images/s": 9.0}, "Fingerpost": {"images/s": 8.0}}
        ),
        "growth": msgspec.structs.replace(RECORD, figures=growth),
    }
    from benchmarks.document.plots import draw

    drawn = []
    for name in ("a", "b"):
        (folder := tmp_path / name).mkdir()
        draw(records, folder)
        drawn.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {f"{row.plot}.svg" for row in ROWS if row.plot}


@pytest.mark.parametrize(
    ("at_most", "ratio", "far"),
    [(False, 0.7, False), (False, 0.6, True), (True, 1.4, False), (True, 1.6, True)],
)
def test_far_off_is_past_the_bound_by_a_factor(at_most, ratio, far):
    goal = Verdict(claim="", ratio=ratio, bound=1.0, at_most=at_most, kept=False)
    assert goal.far_off(1.5) is far


def test_a_report_is_read_back_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path))
    runs = iter([{"images/s": 1.0}, {"images/s": 5.0}, {"images/s": 3.0}])
    figures = in_turn({"ours": lambda: next(runs)}, rounds=3)
    goals = [
        Goal(claim="fast", ratio=3.0, bound=2.0),
        Goal(claim="small", ratio=3.0, bound=2.0, at_most=True),
    ]
    kept = report(
        "some", "Some", figures, goals, versions={}, settings={"rounds": 3}, notes=["So."]
    )
    record = read_records(tmp_path)["some"]
    assert not kept
    assert record.figures == {"ours": {"images/s": 3.0}}
    assert [goal.kept for goal in record.goals] == [True, False]
    assert record.notes == ("So.",)
    assert "missed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ratios", "status"), [([0.1, 1.0], 0), ([0.1, 0.1], 1), ([0.1, None], 1), ([1.0], 0)]
)
def test_a_short_run_has_to_be_far_off_twice(ratios, status, tmp_path, monkeypatch, capsys):
    runs = iter(ratios)
    row = next(row for row in ROWS if row.smoke and not row.root and len(row.results) == 1)

    def run(row, options):
        ratio = next(runs)
        if ratio is not None:
            goal = Goal(claim="fast", ratio=ratio, bound=1.0)
            report(row.results[0], "Some", {}, [goal], versions={}, settings={})
        return True

    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(command, "_run", run)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--smoke", row.name])
    assert command.main() == status
    assert next(runs, "none left") == "none left"
    assert ("measured once more" in capsys.readouterr().out) == (len(ratios) > 1)
