"""The embedded registry's rules: definitions and store, with the time passed in."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fingerpost.registry.embedded.state.definitions import (
    BadRequest,
    CheckReport,
    parse_bool,
    parse_duration_s,
    parse_report,
    parse_service,
)
from fingerpost.registry.embedded.state.store import Store


def service(service_id="a-1", name="a", **fields):
    return parse_service(json.dumps({"ID": service_id, "Name": name} | fields).encode())


def ttl(status="passing", **fields):
    return {"CheckID": "ttl", "TTL": "10s", "Status": status} | fields


def healthy(store, name="a"):
    return [each.definition.id for each in store.instances(name, passing=True)]


# Definitions


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("0", 0),
        (2_000_000_000, 2),
        ("250us", 0.00025),
    ],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1 s", "1d", "soon", -1, "9" * 400 + "h"])
def test_bad_durations(text):
    with pytest.raises(BadRequest):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), ("f", False), ("yes", None), ("", None)]
)
def test_booleans(text, value):
    assert parse_bool(text) is value


def test_keys_are_read_in_any_case_and_null_means_absent():
    body = b"""{"NAME": "a", "id": "a-1", "Tags": null, "enable_tag_override": true,
        "meta": {"Framework": "x"},
        "CHECK": {"ttl": "5s", "deregister_critical_service_after": "2m"}}"""
    definition = parse_service(body)
    assert (definition.id, definition.tags, definition.enable_tag_override) == ("a-1", (), True)
    assert definition.meta == {"Framework": "x"}, "metadata keys keep their case"
    assert definition.checks[0].deregister_after_s == 120


def test_a_service_without_an_id_has_its_name_for_one():
    assert parse_service(b'{"Name": "a"}').id == "a"


def test_check_and_checks_are_merged_and_numbered():
    definition = service(Check={"TTL": "1s"}, Checks=[{"TTL": "2s"}, {"TTL": "3s", "CheckID": "x"}])
    assert [check.id for check in definition.checks] == ["service:a-1:1", "service:a-1:2", "x"]
    assert service(Checks=[{"TTL": "1s"}]).checks[0].id == "service:a-1"
    assert service(Check={}, Checks=[{}]).checks == ()


def test_consuls_lower_bounds():
    check = service(
        Check={
            "HTTP": "http://127.0.0.1:1",
            "Interval": "10ms",
            "DeregisterCriticalServiceAfter": "1s",
        }
    ).checks[0]
    assert (check.interval_s, check.deregister_after_s, check.timeout_s) == (1, 60, 10)
    assert check.status == "critical", "a check without a status starts critical"


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr))
def test_no_body_raises_anything_but_refused(body):
    body = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    for parse in (parse_service, parse_report):
        with pytest.raises(BadRequest):
            parse(body)


@given(
    st.dictionaries(
        st.sampled_from(["name", "ID", "Tags", "port", "Meta", "Weights", "Check", "Checks"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}),
    )
)
def test_no_type_raises_anything_but_refused(fields):
    # Anything but BadRequest fails the test.
    with contextlib.suppress(BadRequest):
        parse_service(json.dumps(fields).encode())


# Store


def test_an_empty_store_has_an_index_that_blocks():
    store = Store()
    assert store.index == store.catalog_index == store.service_index("a") == 1


def test_registering_the_same_again_changes_nothing():
    store = Store()
    store.register(service(Check=ttl()), now=0)
    index = store.index
    store.register(service(Check=ttl()), now=1)
    assert store.index == index
    store.register(service(Check=ttl(), Tags=["new"]), now=2)
    assert store.service_index("a") == store.catalog_index == store.index == index + 1


def test_each_service_has_its_own_index():
    store = Store()
    store.register(service("a-1", "a"), now=0)
    before = store.service_index("a")
    store.register(service("b-1", "b"), now=0)
    assert store.service_index("a") == before
    assert store.service_index("unknown") == store.index


def test_an_index_never_goes_backwards_when_the_last_entry_leaves():
    store = Store()
    store.register(service("a-1", "a"), now=0)
    store.register(service("b-1", "b"), now=0)
    before = store.service_index("a")
    store.deregister("a-1")
    gone = store.service_index("a")
    assert gone > before
    store.register(service("a-1", "a"), now=0)
    assert store.service_index("a") > gone


def test_the_same_id_under_another_name_moves_the_service():
    store = Store()
    store.register(service(Check=ttl()), now=0)
    store.register(service(name="b", Check=ttl()), now=0)
    assert healthy(store, "a") == []
    assert healthy(store, "b") == ["a-1"]


def test_a_ttl_check_without_a_report_in_time_turns_critical():
    store = Store()
    store.register(service(Check=ttl()), now=0)
    assert store.next_due_at() == 10
    store.report_ttl("ttl", CheckReport("passing"), now=8)
    store.tick(10)
    assert healthy(store) == ["a-1"]
    store.tick(18)
    assert healthy(store) == []
    assert store.checks()[0].output == "TTL expired"
    assert store.next_due_at() is None
    store.report_ttl("ttl", CheckReport("passing"), now=20)
    assert healthy(store) == ["a-1"]


@pytest.mark.parametrize(("status", "listed"), [("passing", True), ("warning", False)])
def test_only_passing_counts_as_healthy(status, listed):
    store = Store()
    store.register(service(Check=ttl()), now=0)
    store.report_ttl("ttl", CheckReport(status), now=0)
    assert bool(healthy(store)) is listed


def test_a_service_that_was_critical_for_long_is_removed():
    store = Store()
    store.register(service(Check=ttl(DeregisterCriticalServiceAfter="1m")), now=0)
    store.tick(10)
    assert store.next_due_at() == 70
    store.tick(69.9)
    assert store.service("a-1")
    store.tick(70)
    assert store.service("a-1") is None
    assert store.checks() == []


def test_recovery_stops_the_removal():
    store = Store()
    store.register(service(Check=ttl("critical", DeregisterCriticalServiceAfter="1m")), now=0)
    store.report_ttl("ttl", CheckReport("passing"), now=59)
    store.tick(65)
    assert healthy(store) == ["a-1"]


def test_registering_a_check_again_does_not_revive_it():
    store = Store()
    store.register(service(Check=ttl("critical")), now=0)
    store.register(service(Check=ttl("passing")), now=1)
    assert healthy(store) == []


def test_a_new_output_alone_wakes_nobody():
    store = Store()
    store.register(service(Check=ttl()), now=0)
    index = store.index
    store.report_ttl("ttl", CheckReport("passing", "load 0.7"), now=1)
    assert store.index == index
    assert store.checks()[0].output == "load 0.7"


def test_a_report_for_an_unknown_or_an_http_check_is_not_taken():
    store = Store()
    store.register(
        service(Check={"CheckID": "h", "HTTP": "http://127.0.0.1:1", "Interval": "1s"}), now=0
    )
    assert not store.report_ttl("nobody", CheckReport("passing"), now=0)
    assert not store.report_ttl("h", CheckReport("passing"), now=0)
    store.report_http("h", CheckReport("passing"), now=0)
    store.report_http("nobody", CheckReport("passing"), now=0)
    assert healthy(store) == ["a-1"]


def maintained():
    store = Store()
    store.register(service(Check=ttl()), now=0)
    assert store.set_maintenance("a-1", enable=True, reason="why", now=0)
    return store


def test_maintenance_takes_off_the_list_and_puts_back():
    store = maintained()
    assert healthy(store) == []
    index = store.index
    store.set_maintenance("a-1", enable=True, reason="again", now=0)
    assert store.index == index
    store.set_maintenance("a-1", enable=False, reason="", now=0)
    assert healthy(store) == ["a-1"]
    assert not store.set_maintenance("nobody", enable=True, reason="", now=0)


def test_registering_leaves_maintenance_unless_checks_are_replaced():
    store = maintained()
    store.register(service(Check=ttl()), now=1)
    assert healthy(store) == []
    store.register(service(Check=ttl()), now=1, replace_checks=True)
    assert healthy(store) == ["a-1"]


def test_tags_are_matched_in_any_case_and_all_of_them():
    store = Store()
    store.register(service(Tags=["fingerpost", "V3"]), now=0)
    assert store.instances("a", tags=["Fingerpost", "v3"])
    assert not store.instances("a", tags=["fingerpost", "v4"])
    assert store.tags_by_service() == {"a": ["V3", "fingerpost"]}


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, what a reader sees changes only with its index."""

    ids = st.sampled_from(["1", "2"])
    names = st.sampled_from(["a", "b"])
    statuses = st.sampled_from(["passing", "warning", "critical"])

    def __init__(self):
        super().__init__()
        self.store, self.now, self.seen = Store(), 0.0, {}

    @rule(id_=ids, name=names, status=statuses, replace=st.booleans(), tags=st.sampled_from("xy"))
    def register(self, id_, name, status, replace, tags):
        check = {"CheckID": f"c{id_}", "TTL": "10s", "Status": status}
        check["DeregisterCriticalServiceAfter"] = "60s"
        definition = service(id_, name, Check=check, Tags=[tags])
        self.store.register(definition, now=self.now, replace_checks=replace)

    @rule(id_=ids)
    def deregister(self, id_):
        self.store.deregister(id_)

    @rule(id_=ids, enable=st.booleans())
    def maintain(self, id_, enable):
        self.store.set_maintenance(id_, enable=enable, reason="", now=self.now)

    @rule(id_=ids, status=statuses)
    def report(self, id_, status):
        self.store.report_ttl(f"c{id_}", CheckReport(status), now=self.now)

    @rule(seconds=st.sampled_from([1, 9, 10, 60]))
    def wait(self, seconds):
        self.now += seconds
        self.store.tick(self.now)

    @invariant()
    def what_is_seen_follows_the_index(self):
        for name in ("a", "b"):
            index = self.store.service_index(name)
            view = [
                (each.definition, [(c.definition.id, c.status) for c in checks])
                for each in self.store.instances(name)
                for checks in [self.store.checks_of(each.definition.id)]
            ]
            old_index, old_view = self.seen.get(name, (0, []))
            assert index >= old_index
            if view != old_view:
                assert index > old_index
            self.seen[name] = (index, view)
        assert {check.service_id for check in self.store.checks()} <= {
            each.definition.id for each in self.store.services()
        }
        due = self.store.next_due_at()
        assert due is None or due > self.now


TestAnyOrder = AnyOrder.TestCase
