"""What a client of xDS is told, by the rules of the protocol: names, nonces, versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.proxy.xds.session import EVERY, Session, TooManyNames

LDS, CDS = "listener", "cluster"


def told(session: Session, current: dict[str, str], type_url: str = CDS) -> list[str] | None:
    """Send what is new, as a server does; the names that were sent, with `-` if they are gone."""
    changes = session.changes(type_url, current)
    if changes is None:
        return None
    changed, gone = changes
    session.sent(type_url, [(name, current[name]) for name in changed], gone)
    return sorted([*changed, *(f"-{name}" for name in gone)])


def test_a_name_is_told_once_and_again_when_it_changes() -> None:
    session = Session(10)
    session.set_names(CDS, ["a", "b"])
    assert told(session, {"a": "1", "b": "1"}) == ["a", "b"]
    session.set_names(CDS, ["a", "b"])  # the acknowledgement
    assert told(session, {"a": "1", "b": "1"}) is None
    assert told(session, {"a": "2", "b": "1"}) == ["a"]
    assert told(session, {"b": "1"}) == ["-a"]
    assert told(session, {"b": "1"}) is None
    assert told(session, {"a": "2", "b": "1"}) == ["a"]


def test_a_further_name_is_answered_even_if_it_does_not_exist() -> None:
    session = Session(10)
    session.set_names(LDS, ["a"])
    assert told(session, {}, LDS) == ["-a"]
    assert told(session, {}, LDS) is None
    session.set_names(LDS, ["a", "b"])
    assert told(session, {"b": "1"}, LDS) == ["b"]
    session.set_names(LDS, ["b"])
    assert told(session, {"b": "1"}, LDS) is None
    session.set_names(LDS, ["a", "b"])
    assert told(session, {"a": "5", "b": "1"}, LDS) == ["a"]


def test_no_names_are_all_names_only_before_there_were_names() -> None:
    session = Session(10)
    session.set_names(CDS, [])
    assert session.follows_every(CDS)
    assert told(session, {"a": "1"}) == ["a"]
    assert told(session, {"a": "1", "b": "1"}) == ["b"]
    assert told(session, {"b": "1"}) == ["-a"]
    session.set_names(LDS, ["a"])
    session.set_names(LDS, [])
    assert not session.follows_every(LDS)
    session.set_names(LDS, [EVERY, "a"])
    assert session.follows_every(LDS)
    assert session.names(LDS) == {"a"}


def test_a_request_about_an_older_response_is_stale() -> None:
    session = Session(10)
    assert session.is_stale(CDS, "1")
    assert not session.is_stale(CDS, "")
    session.set_names(CDS, ["a"])
    first = session.sent(CDS, [("a", "1")], [])
    assert not session.is_stale(CDS, first)
    second = session.sent(CDS, [("a", "2")], [])
    assert first != second
    assert session.is_stale(CDS, first)
    assert not session.is_stale(CDS, second)


def test_what_was_refused_is_not_sent_again_until_it_changes() -> None:
    session = Session(10)
    session.set_names(CDS, ["a"])
    assert told(session, {"a": "1"}) == ["a"]
    session.set_names(CDS, ["a"])  # a NACK names the same resources
    assert told(session, {"a": "1"}) is None
    assert told(session, {"a": "2"}) == ["a"]


def test_incremental_names_come_and_go() -> None:
    session = Session(10)
    session.change_names(CDS, ["a", "b"], [], {})
    assert told(session, {"a": "1"}) == ["-b", "a"]
    session.change_names(CDS, ["c"], ["a"], {})
    assert told(session, {"c": "1"}) == ["c"]
    session.change_names(CDS, ["c"], [], {})  # asks anew for what it has
    assert told(session, {"c": "1"}) == ["c"]
    session.change_names(CDS, [EVERY], [], {})
    assert told(session, {"c": "1", "d": "1"}) == ["d"]
    session.change_names(CDS, [], [EVERY], {})
    assert not session.follows_every(CDS)


def test_who_comes_back_is_not_told_what_it_has() -> None:
    session = Session(10)
    session.change_names(CDS, ["a", "b"], [], {"a": "1", "b": "0"})
    assert told(session, {"a": "1", "b": "1"}) == ["b"]


def test_too_many_names_are_refused_and_those_of_all_types_count() -> None:
    session = Session(3)
    session.set_names(CDS, ["a", "b"])
    with pytest.raises(TooManyNames, match="4 names are asked for: one client may follow 3"):
        session.set_names(LDS, ["a", "b"])
    session.set_names(LDS, ["a"])
    with pytest.raises(TooManyNames):
        session.change_names(CDS, ["c"], [], {})


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("names"), st.sets(st.sampled_from("abc"))),
        st.tuples(
            st.just("world"), st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"))
        ),
    ),
    max_size=12,
)


@given(STEPS)
def test_a_client_always_has_what_it_follows(steps: list[tuple[str, object]]) -> None:
    """Whatever happens, after a response the client has exactly what exists of its names."""
    session = Session(10)
    world: dict[str, str] = {}
    names: set[str] = {"a"}
    has: dict[str, str] = {}
    session.set_names(CDS, names)
    for kind, value in steps:
        if kind == "names":
            names = {*value} or {"a"}  # type: ignore[misc]
            session.set_names(CDS, names)
            has = {name: each for name, each in has.items() if name in names}
        else:
            world = dict(value)  # type: ignore[call-overload]
        current = {name: each for name, each in world.items() if name in names}
        changes = session.changes(CDS, current)
        if changes is not None:
            changed, gone = changes
            session.sent(CDS, [(name, current[name]) for name in changed], gone)
            has |= {name: current[name] for name in changed}
            has = {name: each for name, each in has.items() if name not in gone}
        assert has == current
        assert session.changes(CDS, current) is None
