"""Which lists are believed, what is in use meanwhile, and what counts as a word of Consul's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import ConfigurationError, RegistryError
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.watching.self_preservation import (
    Shrinkage,
    ShrinkageConfig,
    Word,
    withdrawn_ids,
)

MODELS = (ModelInfo(name="flowers", versions=("1",)),)
READY, GONE, SILENT = Word.READY, Word.GONE, Word.SILENT


def worker(name: str, *, at: str | None = None, boot_id: int = 0) -> Instance:
    port = 8000 + ord(at or name)
    return Instance(
        id=name,
        service="flowers",
        host="10.0.0.1",
        ports={"http": port},
        models=MODELS,
        boot_id=boot_id,
    )


def workers(names: str) -> list[Instance]:
    return [worker(name) for name in names]


def used(shrinkage: Shrinkage) -> str:
    return "".join(each.id for each in shrinkage.instances)


def kept(shrinkage: Shrinkage) -> str:
    return "".join(shrinkage.kept)


def asked(shrinkage: Shrinkage, now: float) -> str:
    return "".join(sorted(each.id for each in shrinkage.due(now)))


def told(*lists: tuple[str, str], config: ShrinkageConfig | None = None) -> Shrinkage:
    """After these lists and withdrawn ids, all at time 0."""
    shrinkage = Shrinkage(config or ShrinkageConfig())
    for names, withdrawn in lists:
        shrinkage.registry_said(workers(names), withdrawn, now=0.0)
    return shrinkage


LISTS = {
    # name: (before, after, withdrawn, in use at once, kept of them, whether it is suspicious)
    "grows": ("ab", "abc", "", "abc", "", False),
    "stays": ("ab", "ab", "", "ab", "", False),
    "first list": ("", "abc", "", "abc", "", False),
    "empty from the start": ("", "", "", "", "", False),
    "the only one": ("a", "", "", "a", "a", True),
    "all of two": ("ab", "", "", "ab", "ab", True),
    "one of two": ("ab", "a", "", "a", "", False),
    "one of three": ("abc", "ab", "", "ab", "", False),
    "two of three": ("abc", "a", "", "abc", "bc", True),
    "half of four": ("abcd", "ab", "", "abcd", "cd", True),
    "two of five": ("abcde", "abc", "", "abc", "", False),
    "three of five": ("abcde", "ab", "", "abcde", "cde", True),
    "replaced by others": ("ab", "cd", "", "abcd", "ab", True),
    "all withdrawn": ("ab", "", "ab", "", "", False),
    "the only one withdrawn": ("a", "", "a", "", "", False),
    "two of four withdrawn": ("abcd", "ab", "cd", "ab", "", False),
    "one withdrawn, the other vanished": ("ab", "", "a", "b", "b", True),
    "a word about a stranger": ("ab", "", "x", "ab", "ab", True),
    "listed and withdrawn": ("ab", "ab", "ab", "ab", "", False),
}


@pytest.mark.parametrize(
    ("before", "after", "withdrawn", "in_use", "on_their_word", "suspicious"),
    LISTS.values(),
    ids=LISTS,
)
def test_which_lists_are_suspicious(before, after, withdrawn, in_use, on_their_word, suspicious):
    shrinkage = told((before, ""), (after, withdrawn))
    assert used(shrinkage) == in_use
    assert kept(shrinkage) == on_their_word
    assert shrinkage.suspicious is suspicious
    assert asked(shrinkage, 0.0) == on_their_word
    assert (shrinkage.next_due_at() is not None) is suspicious


ANSWERS = {
    # the words of b, c and d, after abcd shrank to a: (in use then, still suspicious)
    "all ready": ((READY, READY, READY), "abcd", True),
    "all gone": ((GONE, GONE, GONE), "a", False),
    "one ready": ((READY, GONE, GONE), "ab", True),
    "all silent": ((SILENT, SILENT, SILENT), "a", True),
    "one of each": ((READY, GONE, SILENT), "ab", True),
}


@pytest.mark.parametrize(("words", "in_use", "suspicious"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_workers_answer_decides(words, in_use, suspicious):
    shrinkage = told(("abcd", ""), ("a", ""))
    for instance, word in zip(shrinkage.due(0.0), words, strict=True):
        shrinkage.worker_said(instance, word, now=0.1)
    assert used(shrinkage) == in_use
    assert shrinkage.suspicious is suspicious
    assert asked(shrinkage, 0.2) == "", "not so soon again"


def test_a_worker_stays_in_use_until_it_has_answered():
    shrinkage = told(("ab", ""), ("", ""))
    first, second = shrinkage.due(0.0)
    shrinkage.worker_said(first, GONE, now=0.1)
    assert used(shrinkage) == "b"
    assert asked(shrinkage, 5.0) == "", "the question to b is under way"
    shrinkage.worker_said(second, READY, now=5.0)
    assert used(shrinkage) == "b"


def test_a_kept_worker_is_asked_again_and_dropped_when_it_dies():
    shrinkage = told(("ab", ""), ("", ""))
    for instance in shrinkage.due(0.0):
        shrinkage.worker_said(instance, READY, now=0.0)
    assert shrinkage.next_due_at() == 1.0
    assert asked(shrinkage, 0.9) == ""
    first, second = shrinkage.due(1.0)
    shrinkage.worker_said(first, GONE, now=1.0)
    shrinkage.worker_said(second, READY, now=1.0)
    assert used(shrinkage) == "b"


def test_a_silent_worker_is_out_of_use_and_returns_when_it_answers():
    shrinkage = told(("ab", ""), ("", ""))
    for instance in shrinkage.due(0.0):
        shrinkage.worker_said(instance, SILENT, now=0.5)
    assert used(shrinkage) == ""
    for instance in shrinkage.due(1.5):
        shrinkage.worker_said(instance, READY, now=1.5)
    assert used(shrinkage) == "ab"


def test_a_worker_that_stays_silent_is_given_up():
    shrinkage = told(("a", ""), ("", ""), config=ShrinkageConfig(silent_s=3.0))
    now = 0.0
    while shrinkage.suspicious:
        for instance in shrinkage.due(now):
            shrinkage.worker_said(instance, SILENT, now=now)
        now += 1.0
    assert 3.0 < now < 6.0
    assert used(shrinkage) == ""


def test_the_suspicion_ends_when_the_registry_lists_them_again():
    shrinkage = told(("abc", ""), ("", ""), ("ab", ""))
    assert shrinkage.suspicious
    assert kept(shrinkage) == "c"
    shrinkage.registry_said(workers("abc"), (), now=1.0)
    assert not shrinkage.suspicious
    assert shrinkage.next_due_at() is None


def test_a_drain_applies_during_a_suspicion_too():
    shrinkage = told(("abc", ""), ("", ""), ("", "b"))
    assert used(shrinkage) == "ac"


def test_whoever_vanishes_during_a_suspicion_is_asked_at_once():
    shrinkage = told(("abcdefgh", ""), ("abcd", ""))
    assert asked(shrinkage, 0.0) == "efgh"
    shrinkage.registry_said(workers("abc"), (), now=0.5)
    assert used(shrinkage) == "abcdefgh"
    assert asked(shrinkage, 0.5) == "d"


def test_agents_that_fail_some_seconds_apart_are_seen_together():
    shrinkage = told(("abc", ""))
    shrinkage.registry_said(workers("ab"), (), now=1.0)
    assert used(shrinkage) == "ab", "one of three is believed"
    shrinkage.registry_said(workers("a"), (), now=6.0)
    assert shrinkage.suspicious
    assert used(shrinkage) == "ab", "c was believed gone: not before it says otherwise"
    words = {"b": GONE, "c": READY}
    for instance in shrinkage.due(6.0):
        shrinkage.worker_said(instance, words.pop(instance.id), now=6.0)
    assert not words
    assert used(shrinkage) == "ac"


def test_deaths_far_apart_are_not_put_together():
    shrinkage = told(("abc", ""))
    shrinkage.registry_said(workers("ab"), (), now=1.0)
    shrinkage.registry_said(workers("a"), (), now=12.0)
    assert not shrinkage.suspicious
    assert used(shrinkage) == "a"


def test_a_process_that_has_the_address_now_is_a_word():
    shrinkage = told(("ab", ""))
    shrinkage.registry_said([worker("c", at="a"), worker("d", at="b")], (), now=0.0)
    assert used(shrinkage) == "cd"
    assert not shrinkage.suspicious


def test_a_restart_under_the_same_id_replaces_the_instance():
    shrinkage = told(("ab", ""), ("", ""))
    new = worker("a", boot_id=7)
    shrinkage.registry_said([new], (), now=0.0)
    assert shrinkage.instances == (new, worker("b"))
    assert kept(shrinkage) == "b"


def test_an_answer_about_an_earlier_disappearance_changes_nothing():
    shrinkage = told(("ab", ""), ("", ""))
    first, _ = shrinkage.due(0.0)
    shrinkage.registry_said(workers("ab"), (), now=1.0)
    shrinkage.worker_said(first, GONE, now=1.1)
    assert used(shrinkage) == "ab"


def test_the_suspicion_has_a_limit():
    shrinkage = told(("ab", ""), ("", ""), config=ShrinkageConfig(keep_s=30.0))
    for now in range(29):
        for instance in shrinkage.due(float(now)):
            shrinkage.worker_said(instance, READY, now=float(now))
    assert used(shrinkage) == "ab"
    assert shrinkage.next_due_at() <= 30.0
    assert shrinkage.due(30.0) == ()
    assert not shrinkage.suspicious
    assert used(shrinkage) == ""


def test_the_rate_of_questions_is_bounded():
    count = 200
    shrinkage = Shrinkage(ShrinkageConfig(asks_per_s=50.0))
    many = [
        Instance(
            id=f"w{n}", service="flowers", host="10.0.0.1", ports={"http": 1 + n}, models=MODELS
        )
        for n in range(count)
    ]
    shrinkage.registry_said(many, (), now=0.0)
    shrinkage.registry_said((), (), now=0.0)
    questions, now = 0, 0.0
    while now < 60.0:
        for instance in shrinkage.due(now):
            questions += 1
            shrinkage.worker_said(instance, READY, now=now)
        now += 0.1
    assert questions <= count + 50 * 60


def test_who_was_being_asked_is_asked_anew_after_a_restart():
    shrinkage = told(("ab", ""), ("", ""))
    assert asked(shrinkage, 0.0) == "ab"
    shrinkage.restart(5.0)
    assert asked(shrinkage, 5.0) == "ab"


NAMES = st.sets(st.sampled_from("abcdefgh")).map(lambda names: "".join(sorted(names)))
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 5),
        st.one_of(st.tuples(NAMES, NAMES), st.sampled_from([READY, GONE, SILENT])),
    ),
    max_size=30,
)


@given(EVENTS)
def test_whatever_happens_the_listed_are_in_use_and_nobody_withdrawn_is_kept(events):
    shrinkage, now, listed, ever = Shrinkage(ShrinkageConfig()), 0.0, "", set()
    for pause_s, event in events:
        now += pause_s
        if isinstance(event, tuple):
            listed, withdrawn = event
            ever |= set(listed)
            shrinkage.registry_said(workers(listed), withdrawn, now=now)
            assert not set(kept(shrinkage)) & set(withdrawn)
        else:
            for instance in shrinkage.due(now):
                shrinkage.worker_said(instance, event, now=now)
        in_use = set(used(shrinkage))
        assert set(listed) <= in_use <= ever
        assert in_use == set(listed) | set(kept(shrinkage))
        assert not set(listed) & set(kept(shrinkage))
        assert shrinkage.suspicious or not shrinkage.kept
        assert (shrinkage.next_due_at() is None) is not shrinkage.suspicious


@given(EVENTS)
def test_a_registry_that_is_sure_in_the_end_is_believed_in_the_end(events):
    shrinkage, now = Shrinkage(ShrinkageConfig()), 0.0
    for pause_s, event in events:
        now += pause_s
        if isinstance(event, tuple):
            shrinkage.registry_said(workers(event[0]), event[1], now=now)
    shrinkage.registry_said(workers("ab"), "", now=now)
    for _ in range(3):
        now += 10.0
        for instance in shrinkage.due(now):
            shrinkage.worker_said(instance, GONE, now=now)
    assert used(shrinkage) == "ab"
    assert not shrinkage.suspicious


@pytest.mark.parametrize(
    "fields",
    [
        {"least": 0},
        {"fraction": 0.0},
        {"fraction": 1.1},
        {"window_s": -1.0},
        {"ask_deadline_s": 0.0},
        {"recheck_s": 0.0},
        {"asks_per_s": 0.0},
        {"silent_s": -1.0},
        {"keep_s": 0.0},
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(fields):
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        ShrinkageConfig(**fields)


# Consul's words, as Consul 1.8.7 and the embedded registry write them

SERF = {"CheckID": "serfHealth", "Status": "passing", "Output": "Agent alive and reachable"}
DEAD_AGENT = SERF | {"Status": "critical", "Output": "Agent not live or unreachable"}


def http(status: str, output: str) -> dict[str, str]:
    return {"CheckID": "service:x", "Status": status, "Type": "http", "Output": output}


def ttl(status: str, output: str) -> dict[str, str]:
    return {"CheckID": "service:x", "Status": status, "Type": "ttl", "Output": output}


def maintenance(check_id: str) -> dict[str, str]:
    return {"CheckID": check_id, "Status": "critical", "Type": "maintenance", "Output": ""}


WORDS = {
    "well": ([SERF, http("passing", "HTTP GET http://h:1/x: 200 OK Output: ")], False),
    "its agent is dead": ([DEAD_AGENT, http("passing", "HTTP GET http://h/x: 200 OK")], False),
    "maintenance": ([SERF, maintenance("_service_maintenance:x"), http("passing", "")], True),
    "its node's maintenance": ([maintenance("_node_maintenance"), SERF], True),
    "maintenance and a dead agent": ([DEAD_AGENT, maintenance("_service_maintenance:x")], True),
    "the engine hangs": (
        [SERF, http("critical", "HTTP GET http://h:1/x: 503 Service Unavailable Output: no")],
        True,
    ),
    "too many requests": ([SERF, http("warning", "HTTP GET http://h:1/x: 429 Output: ")], True),
    "the embedded registry's 503": (
        [SERF, http("critical", "HTTP GET http://h:1/x: 503 Output: ")],
        True,
    ),
    "refused": (
        [SERF, http("critical", 'Get "http://h:1/x": dial tcp h:1: connect: connection refused')],
        False,
    ),
    "no answer": (
        [SERF, http("critical", 'Get "http://h:1/x": context deadline exceeded (Client.Timeout)')],
        False,
    ),
    "the embedded registry's refusal": (
        [SERF, http("critical", "GET http://h:1/x: Cannot connect to host")],
        False,
    ),
    "TTL expired": ([SERF, ttl("critical", "TTL expired")], False),
    "TTL expired after a note": (
        [SERF, ttl("critical", "TTL expired (last output before timeout follows): fine")],
        False,
    ),
    "it reported a failure": ([SERF, ttl("critical", "engine hangs")], True),
    "never checked yet": ([SERF, http("critical", "")], False),
    "no checks": ([], False),
}


@pytest.mark.parametrize(("checks", "withdrawn"), WORDS.values(), ids=WORDS)
def test_what_consul_says_about_an_entry(checks, withdrawn):
    body = json.dumps([{"Service": {"ID": "x"}, "Checks": checks}, {"Service": 7}]).encode()
    assert withdrawn_ids(body) == (("x",) if withdrawn else ())


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"[" * 5000, b'["\xff"]'])
def test_an_answer_that_is_no_list_is_an_error_or_says_nothing(body):
    try:
        assert withdrawn_ids(body) == ()
    except RegistryError as error:
        assert "no JSON list" in str(error)


def test_after_a_suspicion_one_that_vanishes_is_enough() -> None:
    """An agent that comes back lists all, and takes them off one by one until checks have run."""
    shrinkage = told(("abc", ""), ("", ""))
    assert kept(shrinkage) == "abc"
    shrinkage.registry_said(workers("abc"), "", now=20.0)
    assert not shrinkage.suspicious
    shrinkage.registry_said(workers("ab"), "", now=20.1)
    assert used(shrinkage) == "abc"
    assert kept(shrinkage) == "c"
    shrinkage.registry_said(workers("abc"), "", now=20.2)
    shrinkage.registry_said(workers("ab"), "", now=20.2 + ShrinkageConfig().window_s + 1)
    assert used(shrinkage) == "ab"
