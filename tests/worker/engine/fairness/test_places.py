"""Who gives way in a full queue."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fingerpost.worker.engine.fairness.flow import Flow
from fingerpost.worker.engine.fairness.places import gives_way

A, B, HEAVY = Flow("a"), Flow("b"), Flow("heavy", 0, 3.0)
BATCH, OTHER_BATCH = Flow("a", 1), Flow("b", 1)
FLOORS = (0.0, 0.05)


def test_the_one_with_most_for_its_weight_gives_way_to_one_with_less() -> None:
    assert gives_way({A: 100}, B, places=100, floors=FLOORS) is A
    assert gives_way({A: 60, B: 40}, B, places=100, floors=FLOORS) is A
    assert gives_way({A: 50, B: 49}, B, places=99, floors=FLOORS) is None
    assert gives_way({A: 60, B: 40}, A, places=100, floors=FLOORS) is None
    assert gives_way({A: 30, HEAVY: 70}, HEAVY, places=100, floors=FLOORS) is A
    assert gives_way({A: 26, HEAVY: 74}, HEAVY, places=100, floors=FLOORS) is A
    assert gives_way({A: 25, HEAVY: 75}, HEAVY, places=100, floors=FLOORS) is None


def test_a_later_class_gives_way_down_to_its_floor_and_gets_no_less() -> None:
    assert gives_way({BATCH: 60, OTHER_BATCH: 40}, A, places=100, floors=FLOORS) is BATCH
    assert gives_way({A: 90, BATCH: 10}, A, places=100, floors=FLOORS) is BATCH
    assert gives_way({A: 95, BATCH: 5}, A, places=100, floors=FLOORS) is None
    assert gives_way({A: 96, BATCH: 4}, OTHER_BATCH, places=100, floors=FLOORS) is BATCH
    assert gives_way({A: 100}, BATCH, places=100, floors=FLOORS) is A
    assert gives_way({A: 100}, BATCH, places=100, floors=(0.0, 0.0)) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=6
    ),
    st.integers(0, 5),
)
def test_places_become_more_even_until_nobody_gives_way(
    tenants: list[tuple[int, float]], which: int
) -> None:
    flows = [Flow(str(number), 0, weight) for number, (_, weight) in enumerate(tenants)]
    counts = {flow: count for flow, (count, _) in zip(flows, tenants, strict=True) if count}
    new = flows[which % len(flows)]
    for _ in range(300):
        giver = gives_way(counts, new, places=sum(counts.values()), floors=(0.0,))
        if giver is None:
            break
        assert giver is not new
        assert counts[giver] / giver.weight > (counts.get(new, 0) + 1) / new.weight
        counts[giver] -= 1
        counts[new] = counts.get(new, 0) + 1
    own = (counts.get(new, 0) + 1) / new.weight
    assert all(count / flow.weight <= own for flow, count in counts.items() if flow is not new)
