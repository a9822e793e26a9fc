"""The metrics of several processes as one text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fingerpost.worker.front_ends.merged_metrics import MergedMetrics, merge


def process(images: int, *, rif: int = 0, state: int = 1) -> str:
    registry = CollectorRegistry()
    Counter("images", "Images", ["model"], registry=registry).labels('a "b" {c} 1').inc(images)
    Gauge("rif", "In flight", registry=registry).set(rif)
    Gauge("fingerpost_worker_state", "State", registry=registry).set(state)
    times = Histogram("seconds", "Times", buckets=(0.1, 1.0), registry=registry)
    for _ in range(images):
        times.observe(0.5)
    return generate_latest(registry).decode()


def values(text: str) -> dict[str, float]:
    """The samples, without when they were made."""
    return {
        sample.name + str(sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_values_are_added_up_and_states_are_not() -> None:
    found = values(merge([process(3, rif=2), process(4, rif=1, state=2)]))
    assert found["images_total"] == 7
    assert found["rif"] == 3
    assert found["fingerpost_worker_state"] == 2
    assert (found["seconds_bucket0.1"], found["seconds_bucket1.0"]) == (0, 7)
    assert (found["seconds_count"], found["seconds_sum"]) == (7, 3.5)


def test_one_text_stays_as_it_is() -> None:
    assert values(merge([process(3)])) == values(process(3))


def test_counters_of_the_dead_stay_and_their_gauges_go() -> None:
    merged = MergedMetrics()
    merged.note("0", process(3, rif=2))
    merged.note("1", process(4, rif=1))
    merged.end("1")
    found = values(merged.text())
    assert (found["images_total"], found["rif"], found["seconds_count"]) == (7, 2, 7)
    merged.note("1", process(1, rif=5))  # the one that took its place
    found = values(merged.text())
    assert (found["images_total"], found["rif"], found["seconds_count"]) == (8, 7, 8)
    merged.end("1")
    merged.end("none")
    assert values(merged.text())["images_total"] == 8
