"""The load report and its ORCA header."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import BadAnswer
from fingerpost.registry import LoadReport, WorkerState
from fingerpost.registry.load import ClassLoad, decode_load_report

REPORT = LoadReport(
    rif=3,
    slots=8,
    state=WorkerState.READY,
    boot_id=2**53 - 1,
    seq=7,
    queued_cost=1.5,
    latency_per_cost_s=0.125,
    expected_s=0.75,
    alone_s=0.25,
)
OLDER = msgspec.structs.replace(REPORT, expected_s=0.0, alone_s=0.0)
counts = st.integers(min_value=0, max_value=2**53 - 1)
figures = st.floats(min_value=0, max_value=1e12)


def test_the_header_is_orcas_text_form():
    assert REPORT.to_header() == (
        "TEXT application_utilization=0.375,named_metrics.rif=3,named_metrics.slots=8,"
        "named_metrics.queued_cost=1.5,named_metrics.latency_per_cost_s=0.125,"
        f"named_metrics.state=1,named_metrics.boot_id={2**53 - 1},named_metrics.seq=7,"
        "named_metrics.expected_s=0.75,named_metrics.alone_s=0.25"
    )


def test_a_report_says_what_is_there_for_each_class_and_older_clients_pass_over_it():
    classes = {"interactive": ClassLoad(rif=1), "batch": ClassLoad(rif=12, expected_s=0.5)}
    report = msgspec.structs.replace(
        REPORT, rif=12, latency_per_cost_s=1.5, expected_s=0.5, classes=classes
    )
    header = report.to_header()
    assert header.endswith(
        ",named_metrics.class_rif.interactive=1,named_metrics.class_expected_s.interactive=0"
        ",named_metrics.class_rif.batch=12,named_metrics.class_expected_s.batch=0.5"
    )
    assert LoadReport.from_header(header) == report
    assert list(LoadReport.from_header(header).classes or ()) == ["interactive", "batch"]
    assert decode_load_report(msgspec.json.encode(report), "a:1") == report
    for name in (None, "interactive"):
        mine = report.of_class(name)
        assert (mine.rif, mine.expected_s, mine.latency_per_cost_s) == (1, 0.0, 1.0)
    assert report.of_class("batch").rif == 12
    assert report.of_class("unknown") is report
    assert REPORT.of_class(None) is REPORT
    assert b"classes" not in msgspec.json.encode(REPORT)  # as before


def test_a_report_of_a_shared_worker_says_so():
    report = msgspec.structs.replace(REPORT, tenants=3)
    assert report.to_header().endswith(",named_metrics.tenants=3")
    assert LoadReport.from_header(report.to_header()) == report
    assert decode_load_report(msgspec.json.encode(report), "a:1") == report
    assert not REPORT.tenants
    assert b"tenants" not in msgspec.json.encode(REPORT)


@pytest.mark.parametrize("more", ["class_rif.a=-1", "class_rif.a=x", "class_expected_s.a=-1"])
def test_a_class_that_is_not_valid_is_a_bad_answer(more):
    header = f"{REPORT.to_header()},named_metrics.class_rif.a=1,named_metrics.{more}"
    with pytest.raises(BadAnswer):
        LoadReport.from_header(header)


def test_a_report_of_an_older_release_has_no_forecast():
    header, _, _ = REPORT.to_header().partition(",named_metrics.expected_s")
    assert LoadReport.from_header(header) == OLDER
    body = b'{"rif":3,"slots":8,"state":1,"boot_id":%d,"seq":7,"queued_cost":1.5' % REPORT.boot_id
    body += b',"latency_per_cost_s":0.125}'
    assert decode_load_report(body, "a:1") == OLDER


@given(
    st.builds(
        LoadReport,
        rif=counts,
        slots=counts,
        state=st.sampled_from(WorkerState),
        boot_id=counts,
        seq=counts,
        queued_cost=figures,
        latency_per_cost_s=figures,
        expected_s=figures,
        alone_s=figures,
    )
)
def test_a_report_survives_its_header(report):
    back = LoadReport.from_header(report.to_header())
    assert (back.rif, back.slots, back.state) == (report.rif, report.slots, report.state)
    assert (back.boot_id, back.seq) == (report.boot_id, report.seq)
    assert back.queued_cost == pytest.approx(report.queued_cost, rel=1e-5)
    assert back.latency_per_cost_s == pytest.approx(report.latency_per_cost_s, rel=1e-5)
    assert back.expected_s == pytest.approx(report.expected_s, rel=1e-5)
    assert back.alone_s == pytest.approx(report.alone_s, rel=1e-5)


def test_unknown_metrics_and_spaces_are_passed_over():
    header = REPORT.to_header().replace(",", ", ") + ",named_metrics.new=7,cpu_utilization=0.5"
    assert LoadReport.from_header(header) == REPORT


@pytest.mark.parametrize(
    "header",
    [
        "",
        "TEXT",
        "JSON {}",
        "BIN AAAA",
        "TEXT rif=1",
        REPORT.to_header().replace("rif=3", "rif=three"),
        REPORT.to_header().replace("rif=3", "rif=-3"),
        REPORT.to_header().replace("state=1", "state=9"),
        REPORT.to_header().replace("queued_cost=1.5", "queued_cost=nan"),
        REPORT.to_header().replace("queued_cost=1.5", "queued_cost=inf"),
        REPORT.to_header().replace("cost_s=0.125", "cost_s=-1"),
        REPORT.to_header().replace("expected_s=0.75", "expected_s=nan"),
        REPORT.to_header().replace("alone_s=0.25", "alone_s=-1"),
        REPORT.to_header().replace(",named_metrics.seq=7", ""),
        REPORT.to_header().replace("seq=7", "seq=" + "7" * 5000),
        REPORT.to_header().replace("rif=3", "rif=" + "3" * 400),
        REPORT.to_header().replace("queued_cost=1.5", "queued_cost=1e400"),
    ],
)
def test_what_is_no_report_is_a_bad_answer(header):
    with pytest.raises(BadAnswer):
        LoadReport.from_header(header)


@given(st.text())
def test_no_text_raises_anything_else(text):
    with pytest.raises(BadAnswer):
        LoadReport.from_header("TEXT " + text)
