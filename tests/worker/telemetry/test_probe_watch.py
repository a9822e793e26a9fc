"""What a worker says of clocks that differ, and of proxies that do not come."""

from __future__ import annotations

import logging

import pytest

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import load_client
from fingerpost.testing import fake_cluster
from fingerpost.worker.telemetry import probe_watch
from fingerpost.worker.telemetry.probe_watch import ProbeWatch
from tests.support.waiting import until

NOW = 1_800_000_000.0


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.message for each in caplog.records if each.name == probe_watch.__name__]


@pytest.mark.core
@pytest.mark.parametrize(
    ("sent_at", "said"),
    [
        (NOW, ""),
        (NOW - 1.4, ""),  # a slow probe, or a clock that is a little ahead
        (NOW + 0.9, ""),
        (NOW + 5.25, "this clock is 5.25 s behind that of the machine at 10.0.0.1"),
        (NOW - 90.0, "this clock is 90 s ahead of that of the machine at 10.0.0.1"),
        ("yesterday", ""),
        ("nan", ""),
        ("inf", ""),
    ],
)
def test_clocks(sent_at: object, said: str, caplog: pytest.LogCaptureFixture) -> None:
    ProbeWatch(lambda: NOW).note(str(sent_at), "10.0.0.1")
    found = lines(caplog)
    assert len(found) == bool(said)
    assert not said or (said in found[0] and "timedatectl set-ntp true" in found[0])


@pytest.mark.core
def test_a_line_in_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    now = NOW
    watch = ProbeWatch(lambda: now)
    for _ in range(1200):
        watch.note(str(now + 5), "10.0.0.1")
        watch.note(str(now), "10.0.0.2")
        now += 1.0
    assert len(lines(caplog)) == 2


@pytest.mark.shell
async def test_a_proxy_whose_clock_is_off(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is the worker's; the proxy sends its time with each probe."""

    class Ahead:
        @staticmethod
        def time() -> float:
            return probe_watch.time.time() + 60

    monkeypatch.setattr(load_client, "time", Ahead)
    async with fake_cluster({"digits": "7"}) as cluster:
        config = ProxyConfig(registry=cluster.registry_url, port=0, probe_interval_s=0.05)
        async with Proxy(config):
            await until(lambda: lines(caplog))
    assert "s behind that of the machine at 127.0.0.1" in lines(caplog)[0]


@pytest.mark.shell
async def test_nobody_asks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_watch, "_SILENCE_S", 0.01)
    caplog.set_level(logging.INFO)
    async with fake_cluster({"digits": "7"}, workers=0) as cluster:
        monkeypatch.setattr(ProbeWatch, "note", lambda *_: None)
        await cluster.add_worker()
        await until(lambda: lines(caplog))
    assert "no proxy has reached this worker within 0.01 s" in lines(caplog)[0]
