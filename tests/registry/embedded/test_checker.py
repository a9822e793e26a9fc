"""The embedded registry's checks, against servers that answer whatever they like."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.hostile import ENDLESS, reply, serving_hostile

from fingerpost.registry.embedded.checker import Checker
from fingerpost.registry.embedded.state.definitions import CheckDefinition, CheckReport


async def first_report(port: int) -> CheckReport:
    reported: asyncio.Future[CheckReport] = asyncio.get_running_loop().create_future()

    def report(_: str, result: CheckReport) -> None:
        if not reported.done():
            reported.set_result(result)

    checker = Checker(report)
    url = f"http://127.0.0.1:{port}/health"
    definition = CheckDefinition(
        id="1", name="1", status="critical", http=url, interval_s=0.05, timeout_s=0.5
    )
    checker.follow({"1": definition})
    try:
        async with asyncio.timeout(20):
            return await reported
    finally:
        await checker.aclose()


async def test_a_redirect_is_not_followed():
    async with serving_hostile(reply(b"secret")) as inner:
        location = f"Location: http://{inner.address}/internal"
        async with serving_hostile(reply(b"", "302 Found", location)) as hostile:
            report = await first_report(hostile.port)
        assert inner.requests == []
    assert report.status == "critical"
    assert "302" in report.output
    assert "secret" not in report.output


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_answer_without_an_end(name):
    async with serving_hostile(*ENDLESS[name]) as hostile:
        report = await first_report(hostile.port)
        assert hostile.most_bytes < 32_000_000
    # A body is read no further than what is shown of it.
    read = {"a body", "a body with a length", "chunks"}
    assert report.status == ("passing" if name in read else "critical")


async def test_a_report_that_fails_does_not_end_the_check():
    reports = []

    def report(_: str, result: CheckReport) -> None:
        reports.append(result)
        raise RecursionError("a fault of ours")

    async with serving_hostile(reply()) as server:
        checker = Checker(report)
        url = f"http://127.0.0.1:{server.port}/health"
        checker.follow(
            {
                "1": CheckDefinition(
                    id="1", name="1", status="critical", http=url, interval_s=0.01, timeout_s=1.0
                )
            }
        )
        async with asyncio.timeout(10):
            while len(reports) < 3:
                await asyncio.sleep(0.01)
        await checker.aclose()
