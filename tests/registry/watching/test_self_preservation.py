"""Which lists are believed, and which instances are in use meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.optional import not_none

from fingerpost.errors import ConfigurationError
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.watching.self_preservation import (
    ProbeResult,
    SelfPreservation,
    SelfPreservationConfig,
)

MODELS = (ModelInfo(name="flowers", versions=("1",)),)
READY, GONE, UNRESPONSIVE = ProbeResult.READY, ProbeResult.GONE, ProbeResult.UNRESPONSIVE


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


def used(self_preservation: SelfPreservation) -> str:
    return "".join(each.id for each in self_preservation.instances)


def retained(self_preservation: SelfPreservation) -> str:
    return "".join(self_preservation.retained)


def asked(self_preservation: SelfPreservation, now: float) -> str:
    return "".join(sorted(each.id for each in self_preservation.due(now)))


def told(*lists: tuple[str, str], config: SelfPreservationConfig | None = None) -> SelfPreservation:
    """After these lists and withdrawn ids, all at time 0."""
    self_preservation = SelfPreservation(config or SelfPreservationConfig())
    for names, withdrawn in lists:
        self_preservation.update(workers(names), withdrawn, now=0.0)
    return self_preservation


LISTS = {
    # name: (before, after, withdrawn, in use at once, retained of them, whether it is suspicious)
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
    self_preservation = told((before, ""), (after, withdrawn))
    assert used(self_preservation) == in_use
    assert retained(self_preservation) == on_their_word
    assert self_preservation.suspicious is suspicious
    assert asked(self_preservation, 0.0) == on_their_word
    assert (self_preservation.next_due_at() is not None) is suspicious


ANSWERS = {
    # the words of b, c and d, after abcd shrank to a: (in use then, still suspicious)
    "all ready": ((READY, READY, READY), "abcd", True),
    "all gone": ((GONE, GONE, GONE), "a", False),
    "one ready": ((READY, GONE, GONE), "ab", True),
    "all silent": ((UNRESPONSIVE, UNRESPONSIVE, UNRESPONSIVE), "a", True),
    "one of each": ((READY, GONE, UNRESPONSIVE), "ab", True),
}


@pytest.mark.parametrize(("words", "in_use", "suspicious"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_workers_answer_decides(words, in_use, suspicious):
    self_preservation = told(("abcd", ""), ("a", ""))
    for instance, word in zip(self_preservation.due(0.0), words, strict=True):
        self_preservation.probed(instance, word, now=0.1)
    assert used(self_preservation) == in_use
    assert self_preservation.suspicious is suspicious
    assert asked(self_preservation, 0.2) == "", "not so soon again"


def test_a_worker_stays_in_use_until_it_has_answered():
    self_preservation = told(("ab", ""), ("", ""))
    first, second = self_preservation.due(0.0)
    self_preservation.probed(first, GONE, now=0.1)
    assert used(self_preservation) == "b"
    assert asked(self_preservation, 5.0) == "", "the question to b is under way"
    self_preservation.probed(second, READY, now=5.0)
    assert used(self_preservation) == "b"


def test_a_retained_worker_is_asked_again_and_dropped_when_it_dies():
    self_preservation = told(("ab", ""), ("", ""))
    for instance in self_preservation.due(0.0):
        self_preservation.probed(instance, READY, now=0.0)
    assert self_preservation.next_due_at() == 1.0
    assert asked(self_preservation, 0.9) == ""
    first, second = self_preservation.due(1.0)
    self_preservation.probed(first, GONE, now=1.0)
    self_preservation.probed(second, READY, now=1.0)
    assert used(self_preservation) == "b"


def test_a_silent_worker_is_out_of_use_and_returns_when_it_answers():
    self_preservation = told(("ab", ""), ("", ""))
    for instance in self_preservation.due(0.0):
        self_preservation.probed(instance, UNRESPONSIVE, now=0.5)
    assert used(self_preservation) == ""
    for instance in self_preservation.due(1.5):
        self_preservation.probed(instance, READY, now=1.5)
    assert used(self_preservation) == "ab"


def test_a_worker_that_stays_silent_is_given_up():
    self_preservation = told(("a", ""), ("", ""), config=SelfPreservationConfig(unresponsive_s=3.0))
    now = 0.0
    while self_preservation.suspicious:
        for instance in self_preservation.due(now):
            self_preservation.probed(instance, UNRESPONSIVE, now=now)
        now += 1.0
    assert 3.0 < now < 6.0
    assert used(self_preservation) == ""


def test_the_suspicion_ends_when_the_registry_lists_them_again():
    self_preservation = told(("abc", ""), ("", ""), ("ab", ""))
    assert self_preservation.suspicious
    assert retained(self_preservation) == "c"
    self_preservation.update(workers("abc"), (), now=1.0)
    assert not self_preservation.suspicious
    assert self_preservation.next_due_at() is None


def test_a_drain_applies_during_a_suspicion_too():
    self_preservation = told(("abc", ""), ("", ""), ("", "b"))
    assert used(self_preservation) == "ac"


def test_whoever_vanishes_during_a_suspicion_is_asked_at_once():
    self_preservation = told(("abcdefgh", ""), ("abcd", ""))
    assert asked(self_preservation, 0.0) == "efgh"
    self_preservation.update(workers("abc"), (), now=0.5)
    assert used(self_preservation) == "abcdefgh"
    assert asked(self_preservation, 0.5) == "d"


def test_agents_that_fail_some_seconds_apart_are_seen_together():
    self_preservation = told(("abc", ""))
    self_preservation.update(workers("ab"), (), now=1.0)
    assert used(self_preservation) == "ab", "one of three is believed"
    self_preservation.update(workers("a"), (), now=6.0)
    assert self_preservation.suspicious
    assert used(self_preservation) == "ab", "c was believed gone: not before it says otherwise"
    words = {"b": GONE, "c": READY}
    for instance in self_preservation.due(6.0):
        self_preservation.probed(instance, words.pop(instance.id), now=6.0)
    assert not words
    assert used(self_preservation) == "ac"


def test_deaths_far_apart_are_not_put_together():
    self_preservation = told(("abc", ""))
    self_preservation.update(workers("ab"), (), now=1.0)
    self_preservation.update(workers("a"), (), now=12.0)
    assert not self_preservation.suspicious
    assert used(self_preservation) == "a"


def test_a_process_that_has_the_address_now_is_a_word():
    self_preservation = told(("ab", ""))
    self_preservation.update([worker("c", at="a"), worker("d", at="b")], (), now=0.0)
    assert used(self_preservation) == "cd"
    assert not self_preservation.suspicious


def test_a_restart_under_the_same_id_replaces_the_instance():
    self_preservation = told(("ab", ""), ("", ""))
    new = worker("a", boot_id=7)
    self_preservation.update([new], (), now=0.0)
    assert self_preservation.instances == (new, worker("b"))
    assert retained(self_preservation) == "b"


def test_an_answer_about_an_earlier_disappearance_changes_nothing():
    self_preservation = told(("ab", ""), ("", ""))
    first, _ = self_preservation.due(0.0)
    self_preservation.update(workers("ab"), (), now=1.0)
    self_preservation.probed(first, GONE, now=1.1)
    assert used(self_preservation) == "ab"


def test_the_suspicion_has_a_limit():
    self_preservation = told(
        ("ab", ""), ("", ""), config=SelfPreservationConfig(max_duration_s=30.0)
    )
    for now in range(29):
        for instance in self_preservation.due(float(now)):
            self_preservation.probed(instance, READY, now=float(now))
    assert used(self_preservation) == "ab"
    assert not_none(self_preservation.next_due_at()) <= 30.0
    assert self_preservation.due(30.0) == ()
    assert not self_preservation.suspicious
    assert used(self_preservation) == ""


def test_the_rate_of_questions_is_bounded():
    count = 200
    self_preservation = SelfPreservation(SelfPreservationConfig(max_probes_per_s=50.0))
    many = [
        Instance(
            id=f"w{n}", service="flowers", host="10.0.0.1", ports={"http": 1 + n}, models=MODELS
        )
        for n in range(count)
    ]
    self_preservation.update(many, (), now=0.0)
    self_preservation.update((), (), now=0.0)
    questions, now = 0, 0.0
    while now < 60.0:
        for instance in self_preservation.due(now):
            questions += 1
            self_preservation.probed(instance, READY, now=now)
        now += 0.1
    assert questions <= count + 50 * 60


def test_who_was_being_asked_is_asked_anew_after_a_restart():
    self_preservation = told(("ab", ""), ("", ""))
    assert asked(self_preservation, 0.0) == "ab"
    self_preservation.restart(5.0)
    assert asked(self_preservation, 5.0) == "ab"


NAMES = st.sets(st.sampled_from("abcdefgh")).map(lambda names: "".join(sorted(names)))
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 5),
        st.one_of(st.tuples(NAMES, NAMES), st.sampled_from([READY, GONE, UNRESPONSIVE])),
    ),
    max_size=30,
)


@given(EVENTS)
def test_whatever_happens_the_listed_are_in_use_and_nobody_withdrawn_is_kept(events):
    self_preservation, now, listed, ever = (
        SelfPreservation(SelfPreservationConfig()),
        0.0,
        "",
        set(),
    )
    for pause_s, event in events:
        now += pause_s
        if isinstance(event, tuple):
            listed, withdrawn = event
            ever |= set(listed)
            self_preservation.update(workers(listed), withdrawn, now=now)
            assert not set(retained(self_preservation)) & set(withdrawn)
        else:
            for instance in self_preservation.due(now):
                self_preservation.probed(instance, event, now=now)
        in_use = set(used(self_preservation))
        assert set(listed) <= in_use <= ever
        assert in_use == set(listed) | set(retained(self_preservation))
        assert not set(listed) & set(retained(self_preservation))
        assert self_preservation.suspicious or not self_preservation.retained
        assert (self_preservation.next_due_at() is None) is not self_preservation.suspicious


@given(EVENTS)
def test_a_registry_that_is_sure_in_the_end_is_believed_in_the_end(events):
    self_preservation, now = SelfPreservation(SelfPreservationConfig()), 0.0
    for pause_s, event in events:
        now += pause_s
        if isinstance(event, tuple):
            self_preservation.update(workers(event[0]), event[1], now=now)
    self_preservation.update(workers("ab"), "", now=now)
    for _ in range(3):
        now += 10.0
        for instance in self_preservation.due(now):
            self_preservation.probed(instance, GONE, now=now)
    assert used(self_preservation) == "ab"
    assert not self_preservation.suspicious


@pytest.mark.parametrize(
    "fields",
    [
        {"min_vanished": 0},
        {"min_vanished_share": 0.0},
        {"min_vanished_share": 1.1},
        {"window_s": -1.0},
        {"probe_timeout_s": 0.0},
        {"probe_interval_s": 0.0},
        {"max_probes_per_s": 0.0},
        {"unresponsive_s": -1.0},
        {"max_duration_s": 0.0},
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(fields):
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        SelfPreservationConfig(**fields)


def test_after_a_suspicion_one_that_vanishes_is_enough() -> None:
    """An agent that comes back lists all, and takes them off one by one until checks have run."""
    self_preservation = told(("abc", ""), ("", ""))
    assert retained(self_preservation) == "abc"
    self_preservation.update(workers("abc"), "", now=20.0)
    assert not self_preservation.suspicious
    self_preservation.update(workers("ab"), "", now=20.1)
    assert used(self_preservation) == "abc"
    assert retained(self_preservation) == "c"
    self_preservation.update(workers("abc"), "", now=20.2)
    self_preservation.update(workers("ab"), "", now=20.2 + SelfPreservationConfig().window_s + 1)
    assert used(self_preservation) == "ab"


def test_after_an_outage_of_the_registry_one_that_vanishes_is_enough() -> None:
    """A watcher of the agent that was killed saw errors, no list that shrank."""
    self_preservation = told(("abc", ""))
    self_preservation.answers_again(20.0)
    self_preservation.update(workers("abc"), "", now=20.0)
    self_preservation.update(workers("ab"), "", now=20.1)
    assert used(self_preservation) == "abc"
    assert retained(self_preservation) == "c"
