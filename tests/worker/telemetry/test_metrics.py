"""What `/metrics` says, and what counting costs."""

from __future__ import annotations

from fingerpost.worker.models.status import VersionState, VersionStatus
from fingerpost.worker.telemetry.metrics import WorkerMetrics


def text(metrics: WorkerMetrics, **gauges: object) -> str:
    settings = {
        "rif": 0,
        "state": 1,
        "body_memory": (0, 0),
        "queued": {},
        "versions": {},
        **gauges,
    }
    return metrics.render(**settings).decode()


def test_a_models_metrics_are_made_once_and_carry_its_name() -> None:
    metrics = WorkerMetrics()
    cats = metrics.of("cats")
    assert metrics.of("cats") is cats
    cats.requests(200).inc()
    cats.requests(200).inc()
    cats.requests(429).inc()
    cats.images.inc(3)
    metrics.of("dogs").inference_seconds.observe(0.02)
    page = text(metrics)
    assert 'fingerpost_worker_requests_total{model="cats",status="200"} 2.0' in page
    assert 'fingerpost_worker_requests_total{model="cats",status="429"} 1.0' in page
    assert 'fingerpost_worker_images_total{model="cats"} 3.0' in page
    assert 'fingerpost_worker_images_total{model="dogs"} 0.0' in page
    assert 'fingerpost_worker_inference_seconds_count{model="dogs"} 1.0' in page
    assert 'fingerpost_worker_inference_seconds_bucket{le="0.025",model="dogs"} 1.0' in page
    assert 'fingerpost_worker_inference_seconds_bucket{le="0.01",model="dogs"} 0.0' in page


def test_gauges_are_of_the_moment() -> None:
    metrics = WorkerMetrics()
    old = VersionStatus(version="1", state=VersionState.AVAILABLE)
    new = VersionStatus(version="2", state=VersionState.LOADING)
    page = text(metrics, rif=3, queued={"cats": 5, "dogs": 0}, versions={"cats": (new, old)})
    assert "fingerpost_worker_in_flight_requests 3.0" in page
    assert "fingerpost_worker_state 1.0" in page
    assert 'fingerpost_worker_queued_images{model="cats"} 5.0' in page
    assert 'fingerpost_worker_queued_images{model="dogs"} 0.0' in page
    assert 'fingerpost_worker_versions{model="cats",state="LOADING",version="2"} 1.0' in page

    page = text(
        metrics,
        queued={"cats": 0},
        versions={"cats": (VersionStatus(version="2", state=VersionState.AVAILABLE),)},
    )
    assert 'versions{model="cats",state="AVAILABLE",version="2"} 1.0' in page
    assert 'version="1"' not in page
    assert "LOADING" not in page
    assert 'queued_images{model="dogs"}' not in page


def test_the_memory_of_bodies_is_told_with_its_limit() -> None:
    page = text(WorkerMetrics(), body_memory=(3_000_000, 64_000_000))
    assert "fingerpost_worker_body_memory_bytes 3e+06" in page
    assert "fingerpost_worker_body_memory_limit_bytes 6.4e+07" in page
