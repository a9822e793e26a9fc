from __future__ import annotations

import json

import pytest

from fingerpost.deploy.sidecar.server_load import busy_ns, metric_sum

TEXT = """# TYPE pending gauge
pending{model="a"} 3
pending{model="b"} 1.0
# TYPE answered counter
answered_total 7
"""


def test_a_gauge_is_summed_over_its_labels():
    assert metric_sum(TEXT, "pending") == 4
    assert metric_sum(TEXT, "answered_total") == 7


@pytest.mark.parametrize("text", ["", "pending 1", "pending{", "other NaN"])
def test_a_metric_that_is_not_there(text):
    with pytest.raises(ValueError):
        metric_sum(text, "other")


def test_the_statistics_of_v2():
    stats = [
        {"inference_stats": {"success": {"count": 3, "ns": 500}, "fail": {"count": 1, "ns": 20}}},
        {"inference_stats": {"success": {"count": 1, "ns": 7}}},
    ]
    assert busy_ns(json.dumps({"model_stats": stats}).encode()) == 527


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"model_stats": [{}]}', b'{"model_stats":7}']
)
def test_what_is_not_statistics(body):
    with pytest.raises(ValueError):
        busy_ns(body)
