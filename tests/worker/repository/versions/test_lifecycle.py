"""The rules of loading and unloading, as stories, and as properties of any story."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.errors import InvalidRequest, UnknownModel
from fingerpost.worker.models.status import VersionState
from fingerpost.worker.repository.versions.lifecycle import Lifecycle
from fingerpost.worker.repository.versions.policy import VersionPolicy, VersionSettings


class Story:
    """A lifecycle, and a machine that loads and unloads what it is told to, or fails."""

    def __init__(self, policy: str = "latest:1", **aliases: int) -> None:
        self.cycle = Lifecycle("flowers", trust_first_scan=True)
        self.settings = VersionSettings(policy=VersionPolicy.parse(policy), aliases=aliases)
        self.broken: set[int] = set()
        self.there: dict[int, str] = {}
        self.now = 0.0
        self.log: list[str] = []

    def disk(self, *versions: int, **files: str) -> Story:
        """These stand on disk; `v4="b"` has other files than before."""
        self.there = dict.fromkeys(versions, "a") | {int(k[1:]): v for k, v in files.items()}
        return self.scan()

    def scan(self) -> Story:
        self.cycle.scanned(self.there, self.settings)
        return self

    def work(self) -> Story:
        """Do all there is to do."""
        for _ in range(100):
            taken = self.cycle.take_load(self.now)
            if taken is not None:
                version, files = taken
                if version in self.broken:
                    self.log.append(f"failed {version}")
                    self.cycle.failed(version, "broken", files=files, now=self.now)
                else:
                    self.log.append(f"loaded {version}")
                    self.cycle.loaded(version)
            leaving = self.cycle.take_unloads()
            for version in leaving:
                self.log.append(f"unloaded {version}")
                self.cycle.unloaded(version)
            if taken is None and not leaving:
                return self
        raise AssertionError(f"it never ends: {self.log[-10:]}")

    @property
    def served(self) -> tuple[str, ...]:
        info = self.cycle.info()
        return info.versions if info is not None else ()


def test_the_newest_is_loaded_and_a_newer_one_replaces_it_once_it_is_whole() -> None:
    story = Story().disk(1, 3).work()
    assert story.served == ("3",)
    story.disk(1, 3, 4).work()
    assert story.served == ("3",), "it may still be being copied"
    story.disk(1, 3, v4="more").work()
    assert story.served == ("3",)
    story.scan().work()
    assert story.served == ("4",)
    assert story.log == ["loaded 3", "loaded 4", "unloaded 3"]
    assert story.cycle.default == 4


def test_changed_files_of_a_loaded_version_are_told_of_once_they_are_whole() -> None:
    story = Story().disk(3).work()
    assert story.cycle.take_changes() == ()
    story.disk(v3="half")
    assert story.cycle.take_changes() == (), "they may still be being written"
    story.disk(v3="whole").scan()
    assert story.cycle.take_changes() == (3,)
    assert story.scan().cycle.take_changes() == ()
    story.cycle.relabelled(3, "too few labels")
    assert story.cycle.problems() == ("version 3: too few labels",)
    assert [each.error for each in story.cycle.statuses()] == ["too few labels"]
    story.disk(v3="mended").scan()
    assert story.cycle.take_changes() == (3,)
    story.cycle.relabelled(3, "")
    assert story.cycle.problems() == ()
    assert story.work().log == ["loaded 3"]


def test_what_was_wrong_with_labels_ends_with_the_version() -> None:
    story = Story().disk(3).work()
    story.cycle.relabelled(3, "too few labels")
    story.disk(3, 4).scan().work()
    assert story.log == ["loaded 3", "loaded 4", "unloaded 3"]
    assert story.cycle.problems() == ()
    story.cycle.relabelled(3, "too late")
    assert story.cycle.problems() == ()


def test_a_broken_version_leaves_the_old_one_and_is_tried_again_when_its_files_change() -> None:
    story = Story().disk(3).work()
    story.broken = {4}
    story.disk(3, 4).scan().work()
    assert story.served == ("3",)
    assert story.cycle.problems() == ("version 4: broken",)
    assert [s.state for s in story.cycle.statuses()] == [VersionState.END, VersionState.AVAILABLE]
    story.scan().scan().work()
    assert story.log == ["loaded 3", "failed 4"], "the same files fail again"
    story.broken = set()
    story.disk(3, v4="mended").scan().work()
    assert story.served == ("3",), "there is a pause after a failure"
    story.now += 5.0
    story.work()
    assert story.served == ("4",)
    assert story.cycle.problems() == ()


def test_pauses_grow_with_failures() -> None:
    story = Story().disk(1).work()
    story.broken = {2}
    waited = []
    for number in range(9):
        story.disk(1, v2=str(number)).scan().work()
        since = story.now
        while len(story.log) <= number + 1:
            story.now += 1.0
            story.work()
        waited.append(story.now - since)
    assert waited == [0, 5, 10, 20, 40, 80, 160, 300, 300]


def test_at_the_start_the_next_lower_one_serves_for_a_broken_one() -> None:
    story = Story()
    story.broken = {3}
    story.disk(1, 2, 3).work()
    assert story.served == ("2",)


def test_removing_the_newest_folder_is_a_rollback() -> None:
    story = Story().disk(1, 2, 3).work()
    story.disk(1, 2).work()
    assert story.log == ["loaded 3", "loaded 2", "unloaded 3"]


def test_the_last_version_stays_while_the_models_folder_does() -> None:
    story = Story().disk(3).work()
    story.disk().work()
    assert story.served == ("3",)
    story.cycle.removed()
    story.work()
    assert story.served == ()
    assert story.cycle.finished


def test_a_rollback_holds_until_a_newer_version_comes() -> None:
    story = Story(stable=3).disk(1, 2, 3).work()
    assert story.cycle.rollback() == 2
    assert story.cycle.aliases == {"stable": 3}, "until the other is warm"
    story.work()
    assert (story.served, story.cycle.default) == (("2",), 2)
    assert story.cycle.aliases == {"stable": 2}
    story.scan().work()
    assert story.served == ("2",)
    story.disk(1, 2, 3, 4).scan().work()
    assert story.cycle.default == 4
    assert story.served == ("4", "2"), "the alias holds it"


@pytest.mark.parametrize("policy", ["latest:1", "latest:2", "specific:3", "all"])
def test_a_rollback_works_under_every_policy(policy: str) -> None:
    story = Story(policy).disk(1, 2, 3).work()
    assert story.cycle.rollback() == 2
    story.work()
    assert story.cycle.default == 2
    assert "3" not in story.served


def test_a_rollback_to_a_broken_version_goes_further_down() -> None:
    story = Story().disk(1, 2, 3).work()
    story.broken = {2}
    story.cycle.rollback()
    story.work()
    assert story.served == ("1",)


def test_a_rollback_with_nothing_below_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="below 3"):
        Story().disk(3).work().cycle.rollback()


def test_a_canary_is_loaded_for_its_alias_and_is_not_the_default() -> None:
    story = Story("specific:3", stable=3, canary=4).disk(3, 4).work()
    assert story.served == ("4", "3")
    assert story.cycle.default == 3
    assert story.cycle.aliases == {"stable": 3, "canary": 4}


def test_an_alias_points_to_the_old_version_until_the_new_one_is_warm() -> None:
    story = Story("specific:1", canary=2).disk(1, 2, 3).work()
    story.cycle.set_alias("canary", 3)
    assert story.cycle.take_load(0.0) == (3, "a")
    assert story.cycle.aliases == {"canary": 2}
    assert story.cycle.take_unloads() == ()
    story.cycle.loaded(3)
    assert story.cycle.aliases == {"canary": 3}
    story.work()
    assert story.served == ("3", "1")


def test_an_alias_whose_new_version_is_broken_stays_where_it_was() -> None:
    story = Story("specific:1", canary=2).disk(1, 2, 3).work()
    story.broken = {3}
    story.cycle.set_alias("canary", 3)
    story.work()
    assert story.cycle.aliases == {"canary": 2}
    assert story.served == ("2", "1")
    assert "alias canary points to version 3, which does not exist" in story.cycle.problems()


def test_a_changed_settings_file_counts_and_a_broken_one_leaves_the_last() -> None:
    story = Story(canary=2).disk(1, 2, 3).work()
    assert story.served == ("3", "2")
    story.cycle.scanned(story.there, None, "versions.toml: no TOML")
    story.work()
    assert story.served == ("3", "2")
    assert story.cycle.problems() == ("versions.toml: no TOML",)
    story.settings = VersionSettings(policy=VersionPolicy.parse("all"), aliases={})
    story.scan().work()
    assert story.served == ("3", "2", "1")
    assert story.cycle.aliases == {}
    assert story.cycle.problems() == ()


def test_settings_that_cannot_be_read_at_the_start_load_nothing() -> None:
    story = Story()
    story.cycle.scanned({3: "a"}, None, "versions.toml: no TOML")
    story.work()
    assert story.served == ()
    assert story.cycle.problems() == ("versions.toml: no TOML",)
    story.disk(3).work()
    assert story.served == ("3",)


def test_orders_to_load_and_unload() -> None:
    story = Story().disk(1, 2, 3).work()
    story.cycle.load(1)
    story.work()
    assert (story.served, story.cycle.default) == (("3", "1"), 3)
    story.cycle.unload(3)
    story.work()
    assert (story.served, story.cycle.default) == (("2", "1"), 2)
    story.cycle.unload(1)
    story.work()
    assert story.served == ("2",)


def test_an_order_tries_a_broken_version_again_at_once() -> None:
    story = Story()
    story.broken = {2}
    story.disk(1, 2).work()
    story.cycle.load(2)
    story.work()
    assert story.log == ["failed 2", "loaded 1", "failed 2"]
    story.broken = set()
    story.cycle.load(2)
    story.work()
    assert story.served == ("2",)


@pytest.mark.parametrize(
    ("order", "error", "says"),
    [
        (lambda cycle: cycle.load(9), UnknownModel, "its folder has: 1, 2, 3"),
        (lambda cycle: cycle.set_alias("canary", 9), UnknownModel, "no version 9"),
        (lambda cycle: cycle.unload(3), InvalidRequest, "move the alias"),
        (lambda cycle: [cycle.unload(v) for v in (1, 2, 4)], UnknownModel, "no version 4"),
    ],
)
def test_orders_that_cannot_be(order, error, says) -> None:
    with pytest.raises(error, match=says):
        order(Story(stable=3).disk(1, 2, 3).work().cycle)


def test_the_only_version_cannot_be_unloaded() -> None:
    with pytest.raises(InvalidRequest, match="the only version"):
        Story().disk(3).work().cycle.unload(3)


def test_a_model_ordered_away_comes_back_by_an_order_alone() -> None:
    story = Story(stable=1).disk(1, 2).work()
    story.cycle.disable()
    story.work()
    assert (story.served, story.cycle.default, story.cycle.idle) == ((), None, True)
    story.disk(1, 2, 3).scan().work()
    assert story.served == ()
    assert not story.cycle.finished
    story.cycle.enable()
    story.work()
    assert (story.served, story.cycle.default) == (("3", "1"), 3)
    for order in (lambda: story.cycle.load(2), lambda: story.cycle.set_alias("stable", 2)):
        story.cycle.disable()
        story.work()
        order()
        story.work()
        assert "2" in story.served


def test_an_order_for_the_model_tries_again_at_once_what_failed() -> None:
    story = Story().disk(1).work()
    story.broken = {2}
    story.disk(1, 2).scan().work()
    story.broken = set()
    story.cycle.enable()
    story.work()
    assert story.log == ["loaded 1", "failed 2", "loaded 2", "unloaded 1"]


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_whatever_happens(data: st.DataObject) -> None:
    """Never without a version once it had one, unless it was ordered away; and in the end, what is
    wanted is what is served."""
    policy = data.draw(st.sampled_from(["latest:1", "latest:2", "all", "specific:1,2"]))
    aliases = data.draw(st.dictionaries(st.sampled_from(["stable", "canary"]), st.integers(1, 4)))
    cycle = Lifecycle("flowers", trust_first_scan=data.draw(st.booleans()))
    config = VersionSettings(policy=VersionPolicy.parse(policy), aliases=aliases)
    disk: dict[int, str] = {}
    loading: list[tuple[int, str]] = []
    unloading: list[int] = []
    warm: set[int] = set()
    had_one = away = False
    for now in range(data.draw(st.integers(1, 40))):
        match data.draw(st.integers(0, 9)):
            case 0 | 1:
                disk = data.draw(st.dictionaries(st.integers(1, 4), st.sampled_from("ab")))
                cycle.scanned(disk, config)
            case 2:
                cycle.scanned(disk, config)
            case 3 | 4 if not loading and (taken := cycle.take_load(float(now))):
                loading.append(taken)
                assert taken[0] not in warm
            case 5 if loading:
                version, _ = loading.pop()
                warm.add(version)
                cycle.loaded(version)
            case 6 if loading:
                version, files = loading.pop()
                cycle.failed(version, "broken", files=files, now=float(now))
            case 7:
                unloading += cycle.take_unloads()
            case 8 if unloading:
                version = unloading.pop()
                warm.discard(version)
                cycle.unloaded(version)
            case 9:
                version = data.draw(st.integers(1, 4))
                orders = {
                    "load": lambda v: cycle.load(v),
                    "unload": lambda v: cycle.unload(v),
                    "alias": lambda v: cycle.set_alias("stable", v),
                    "rollback": lambda _: cycle.rollback(),
                    "away": lambda _: cycle.disable(),
                    "back": lambda _: cycle.enable(),
                }
                order = data.draw(st.sampled_from(sorted(orders)))
                with contextlib.suppress(InvalidRequest, UnknownModel):
                    orders[order](version)
                    away = order == "away" or (away and order in ("unload", "rollback"))
        info = cycle.info()
        served = {int(version) for version in info.versions} if info else set()
        assert served == warm - set(unloading), "what is told is warm, and stays"
        had_one = bool(served) if away else had_one or bool(served)
        assert bool(served) == had_one
        assert (cycle.default in served) if served else cycle.default is None
        assert set(cycle.aliases.values()) <= served
    for version, _ in loading:
        cycle.loaded(version)
    for version in unloading:
        cycle.unloaded(version)
    for _ in range(3):
        cycle.scanned(disk, config)
    for now in range(1000, 1020):
        if taken := cycle.take_load(float(now)):
            cycle.loaded(taken[0])
        for version in cycle.take_unloads():
            cycle.unloaded(version)
    assert cycle.idle
    assert cycle.take_load(2000.0) is None
    assert cycle.take_unloads() == ()
    cycle.removed()
    for version in cycle.take_unloads():
        cycle.unloaded(version)
    assert cycle.finished
