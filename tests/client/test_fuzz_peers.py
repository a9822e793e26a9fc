"""Some answers of peers at random; `make fuzz` reads more."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.client.fuzz_peers import answer_of, read

from fingerpost.client import ClientConfig
from fingerpost.client.proxy_answers import ProxyAnswers
from fingerpost.client.transport.deadlines import DeadlineScheduler
from fingerpost.client.transport.transport import Transport
from fingerpost.registry.address_policy import AddressPolicy


@pytest.mark.parametrize("block", range(4))
async def test_whatever_a_peer_answers_is_its_typed_error(block):
    transport = Transport(ClientConfig(), DeadlineScheduler())
    answers = ProxyAnswers(AddressPolicy())
    codes: Counter[str] = Counter()
    for seed in range(block * 400, block * 400 + 400):
        codes.update(read(answer_of(seed), transport, answers))
    assert codes["bad_answer"] > 400
    assert len(codes) > 2, "some are read as other errors"
    await transport.aclose()
