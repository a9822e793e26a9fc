"""The rows of faults come together from all processes in which the scenes ran."""

from __future__ import annotations

from tests.faults.table import Table


def test_rows_of_two_processes_are_one_table() -> None:
    one, other, shown = Table(), Table(), Table()
    one.consul = "1.2.3"
    for table, number, value in ((one, "12", 3.0), (other, "2", 0.5)):
        row = table.row(number, f"fault {number}")
        row.done, row.requests, row.failed = "something was done", 7, 0
        row.at_most("seconds", value, 2.0, " s")
        row.note("a note")
    other.rows[0].check()
    for table in (one, other):
        shown.add(table.encode())
    assert [row.number for row in shown._sorted()] == ["2", "12"]
    assert shown.consul == "1.2.3"
    expected = Table()
    expected.rows, expected.consul = [*one.rows, *other.rows], "1.2.3"
    assert shown.lines() == expected.lines()
    assert shown.markdown() == expected.markdown()
    assert [row.verdict for row in shown._sorted()] == ["met", "not measured"]
