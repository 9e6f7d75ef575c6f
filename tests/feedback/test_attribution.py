"""Outcomes of entities, in any order of arrival, against the rule read off all records at once."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.joins import Arrivals, JoinSpec, Outcome, Reports, Scored
from tailrace.core.labels import STATUSES
from tailrace.feedback.label_state import LabelState

W, L = 100, 10
END = 10_000
entities = st.sampled_from(["c", "d"])
times = st.sampled_from([0, 1, 40, 99, 100, 101, 150, 200])
offers = st.lists(st.tuples(entities, times), max_size=8)
outcomes = st.lists(
    st.tuples(
        entities,
        st.builds(
            lambda name, revision, retract, value, time_ms, left: Outcome(
                revision, retract, value, time_ms, name, left and not retract
            ),
            st.sampled_from(["x", "y"]),
            st.integers(0, 2),
            st.sampled_from([False, False, True]),
            st.sampled_from([1.0, 2.0, 4.0]),
            times,
            st.sampled_from([False, False, False, True]),
        ),
    ),
    max_size=8,
)
rules = st.sampled_from(["every_touch", "last_touch", "first_touch", "linear"])


@given(offers, outcomes, rules, st.permutations(range(16)), st.integers(0, 16))
def test_every_prediction_ends_with_what_the_newest_outcomes_of_its_entity_say(
    made: list[tuple[str, int]], said: list[tuple[str, Outcome]], rule: Any, order: list[int], cut: int
) -> None:
    state = LabelState(
        JoinSpec(
            window_ms=W, lateness_ms=L, correction_ms=100_000, hold_ms=1, reduce="sum", entity="e", attribution=rule
        ),
        END,
    )
    records: list[Any] = [*enumerate(made), *said]
    arrivals = [records[at] for at in order if at < len(records)]
    ended: dict[str, tuple[float | None, str]] = {}
    # All come before stream time moves, as lateness promises; how they are cut into batches cannot matter.
    for part in (arrivals[:cut], arrivals[cut:]):
        predictions = [_scored(number, one) for number, one in part if isinstance(number, int)]
        if predictions:
            state.predict(Arrivals.of(predictions))
        reports = [(name, one) for name, one in part if isinstance(name, str)]
        state.observe(Reports.of([name for name, _ in reports], [one for _, one in reports]))
    for watermark_ms in (250, 320):
        changes = state.advance(watermark_ms)
        for text, label, status in zip(
            state.table.read(changes.rows), changes.label.tolist(), changes.status.tolist(), strict=True
        ):
            ended[text.event_id] = (None if np.isnan(label) else label, STATUSES[status])
    assert {f"{number:02}": _expected(number, made, said, rule) for number in range(len(made))} == ended


def _scored(number: int, offer: tuple[str, int]) -> Scored:
    entity, time_ms = offer
    return Scored(
        f"{number:02}", f"{number:02}", entity, msgspec.Raw(msgspec.json.encode({"e": entity})),
        msgspec.Raw(b"{}"), time_ms, "champion", "1", 0.5, True,
    )  # fmt: skip


def _expected(
    number: int, made: list[tuple[str, int]], said: list[tuple[str, Outcome]], rule: str
) -> tuple[float | None, str]:
    """What the newest revision of each outcome of its entity gives to one prediction."""
    entity, live, left = made[number][0], [], False
    for name in ("x", "y"):
        mine = [one for of, one in said if of == entity and one.outcome_id == name]
        newest = max(mine, key=lambda one: one.rank, default=None)
        if newest is None or newest.retract:
            continue
        inside = [(t, at) for at, (e, t) in enumerate(made) if e == entity and t <= newest.time_ms < t + W]
        inside.sort()
        credited = {"last_touch": inside[-1:], "first_touch": inside[:1]}.get(rule, inside)
        if newest.left:
            left |= (made[number][1], number) in inside
        elif (made[number][1], number) in credited:
            live.append(newest.value / len(inside) if rule == "linear" else newest.value)
    if live:
        return sum(sorted(live)), "final"
    return (None, "censored") if left else (0.0, "final")
