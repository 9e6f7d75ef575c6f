"""The join's truth table (docs: W=100, S=5, L=10, C=1000, H=50), row by row, with predictions at t=0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_join import NaiveJoin

from tailrace.core import closed_events, join_table
from tailrace.core.join_table import Cohort, JoinTable
from tailrace.core.joins import Arrivals, Changes, JoinSpec, JoinState, Outcome, Reports, Scored
from tailrace.core.labels import NO_TIME, REASONS, STATUSES
from tailrace.core.outcome_sources import MOST_SOURCES, OTHERS_NAME, SourceBook
from tailrace.core.trust import Trust, tier_of

SPEC = JoinSpec(window_ms=100, skew_ms=5, lateness_ms=10, correction_ms=1000, hold_ms=50)
NOTHING = msgspec.Raw(b"{}")
Step = Scored | Outcome | int
Emission = tuple[float | None, str, int]


def prediction(variant: str = "champion", *, activated: bool = True, blocked: bool = False) -> Scored:
    return Scored(
        f"e:{variant}", "e", "k", NOTHING, NOTHING, 0, variant, "1", 0.5, True, activated=activated, blocked=blocked
    )


def outcome(time_ms: int, value: float = 1.0, revision: int = 0, *, retract: bool = False) -> Outcome:
    return Outcome(revision, retract, value, time_ms)


def play(*steps: Step, spec: JoinSpec = SPEC, packs: bool = False) -> tuple[JoinState, list[Emission]]:
    """Predictions and outcomes arrive, integers move the watermark; what is closed is packed at once, or never."""
    state, changes = JoinState(spec), []
    for step in steps:
        if isinstance(step, int):
            changes += seen(state.advance(step))
        elif isinstance(step, Scored):
            changes += seen(state.predict(Arrivals.of([step])))
        else:
            changes += seen(state.observe(Reports.of(["e"], [step])))
        if packs:
            state.pack(state.watermark_ms)
    return state, changes


def seen(changes: Changes) -> list[Emission]:
    return [
        (None if np.isnan(label) else label, STATUSES[status], version)
        for label, status, version in zip(
            changes.label.tolist(), changes.status.tolist(), changes.version.tolist(), strict=True
        )
    ]


P = prediction()
ROWS: dict[str, tuple[list[Step], list[Emission], dict[str, int]]] = {
    "1": ([P, outcome(5), 110], [(1, "provisional", 1), (1, "final", 2)], {}),
    "2a": ([P, 109], [], {}),
    "2b": ([P, 110], [(0, "final", 1)], {}),
    "3": ([outcome(5), P, 110], [(1, "provisional", 1), (1, "final", 2)], {}),
    "3, before the watermark moves": ([outcome(5), P], [], {}),
    "4": ([outcome(5), 55, P, 110], [(0, "final", 1)], {"orphan": 1}),
    "5a": ([P, outcome(99)], [(1, "provisional", 1)], {}),
    "5b": ([P, outcome(100), 110], [(0, "final", 1)], {"out_of_window": 1}),
    "6a": ([P, outcome(-5)], [(1, "provisional", 1)], {}),
    "6b": ([P, outcome(-6), 110], [(0, "final", 1)], {"out_of_window": 1}),
    "7": ([P, outcome(5), outcome(5)], [(1, "provisional", 1)], {"duplicate": 1}),
    "8": (
        [P, outcome(5, 1), outcome(5, 3, 1)],
        [(1, "provisional", 1), (3, "provisional", 2)],
        {},
    ),
    "9": (
        [P, outcome(5, 3, 1), outcome(5, 1)],
        [(3, "provisional", 1)],
        {"stale_revision": 1},
    ),
    "10a": (
        [P, outcome(5, 1), outcome(5, 2)],
        [(1, "provisional", 1), (2, "provisional", 2)],
        {"conflict": 1},
    ),
    "10b": (
        [P, outcome(5, 2), outcome(5, 1)],
        [(2, "provisional", 1)],
        {"conflict": 1},
    ),
    "11": (
        [P, outcome(5), outcome(6, 1, 1, retract=True), 110],
        [(1, "provisional", 1), (None, "pending", 2), (0, "final", 3)],
        {},
    ),
    "12": ([P, 110, outcome(50)], [(0, "final", 1), (1, "final", 2)], {}),
    "13": (
        [P, 110, outcome(50), outcome(50, 1, 1, retract=True)],
        [(0, "final", 1), (1, "final", 2), (0, "final", 3)],
        {},
    ),
    "14": ([P, 110, 1110, outcome(50)], [(0, "final", 1)], {"too_late": 1}),
    "15": ([P, P, 110], [(0, "final", 1)], {"duplicate": 1}),
    "19": ([prediction(activated=False), 10_000], [(None, "censored", 1)], {}),
    "20": ([prediction(blocked=True), 10_000], [(None, "censored", 1)], {}),
    "21": (
        [P, prediction("shadow"), outcome(5)],
        [(1, "provisional", 1), (1, "provisional", 1)],
        {},
    ),
}


@pytest.fixture(scope="module", params=["in the table", "packed"])
def packs(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether closed events are packed, at once and one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_events, "BLOCK", 1)
        patch.setattr(join_table, "LEAST_RENUMBERED", 0)
        yield request.param == "packed"


@pytest.mark.parametrize("row", ROWS)
def test_truth_table_row_gives_its_emissions(row: str, packs: bool) -> None:
    steps, expected, counts = ROWS[row]
    state, changes = play(*steps, packs=packs)
    assert (expected, counts) == (changes, dict(state.counts))


ARRIVALS: list[Step] = [
    P,
    prediction("shadow"),
    outcome(5),
    outcome(7, 0, 1),
    outcome(9, 1, 1),
    outcome(500),
    outcome(7, 0, 1),
]


@given(st.permutations(ARRIVALS))
def test_arrival_order_does_not_change_the_final_table(order: list[Step]) -> None:
    def final(state: JoinState) -> dict[str, tuple[float, int]]:
        table = state.table
        rows = table.live()
        ids = [text.prediction_id for text in table.read(rows)]
        return dict(zip(ids, zip(table.label[rows].tolist(), table.status[rows].tolist(), strict=True), strict=True))

    state, _ = play(*order, 110)
    assert final(play(*ARRIVALS, 110)[0]) == final(state)


def test_restored_event_is_still_judged_by_the_outcome_that_came_first() -> None:
    state, _ = play(outcome(5), P)
    restored = JoinState(SPEC)
    restored.table = state.table
    restored.restore(state.table.live())
    assert [(1, "provisional", 1)] == seen(restored.advance(20))


def test_event_is_forgotten_when_its_horizon_has_passed() -> None:
    state, _ = play(P, outcome(5), 110, 1109)
    state.forget()
    assert 0 == state.take_gone().size
    state.advance(1110)
    state.forget()
    assert 1 == state.take_gone().size
    assert 0 == len(state)


# Few events, times and values, so that every collision there can be happens; times close to each bound of SPEC.
events = st.sampled_from(["a", "b", "c"])
times = st.sampled_from([0, 1, 40, 95, 99, 100, 110, 150, 500, 1109, 1110])
scored = st.builds(
    lambda event, variant, time_ms, score, shown, blocked: Scored(
        f"{event}:{variant}", event, "k", NOTHING, NOTHING, time_ms, variant, "1", score, score > 0.4, shown, blocked
    ),
    events,
    st.sampled_from(["champion", "shadow", "canary"]),
    st.sampled_from([0, 1, 40]),
    st.sampled_from([0.25, 0.5]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([False, False, False, True]),
)
TRUST: dict[str, Trust] = {"analyst": "human", "rules": "system"}
values = st.sampled_from([0.0, 1.0, 2.5, -1.0])
ids = st.sampled_from(["x", "y", "z"])
kinds = st.sampled_from([(False, False), (False, False), (True, False), (False, True)])
reported = st.tuples(
    events,
    st.builds(
        lambda revision, kind, value, time_ms, name, source: Outcome(
            revision, kind[0], value, time_ms, name, kind[1], source, tier_of(TRUST, source)
        ),
        st.sampled_from([0, 0, 1, 2]),
        kinds,
        values,
        times,
        ids,
        st.sampled_from(["analyst", "rules", "shop 1", "shop 2"]),
    ),
)
batch = st.tuples(
    st.lists(scored, max_size=8), st.lists(reported, max_size=12), st.none() | times, st.booleans(), st.booleans()
)
specs = st.builds(
    msgspec.structs.replace,
    st.just(SPEC),
    if_absent=st.sampled_from([False, False, None]),
    closes_at_outcome=st.booleans(),
    reduce=st.sampled_from([None, "any", "sum", "max", "last"]),
    trust=st.sampled_from([None, TRUST]),
)


@pytest.mark.parametrize("packs", ["packed"], indirect=True)
@pytest.mark.usefixtures("packs")
@given(st.lists(batch, max_size=8), specs)
def test_batches_on_columns_emit_what_the_naive_join_emits_record_by_record(batches: list[Any], spec: JoinSpec) -> None:
    naive, columns = NaiveJoin(spec), JoinState(spec)
    if spec.reduce is None:
        batches = [
            (p, [(e, msgspec.structs.replace(o, outcome_id="", left=False)) for e, o in r], *x) for p, r, *x in batches
        ]
    if spec.trust is None:
        batches = [(p, [(e, msgspec.structs.replace(o, source="", tier=0)) for e, o in r], *x) for p, r, *x in batches]
    versions: dict[str, int] = {}
    for predictions, reports, watermark_ms, forgets, packs in batches:
        expected = [change for one in predictions for change in naive.predict(one)]
        expected += [change for event, one in reports for change in naive.observe(event, one)]
        parts = [columns.predict(Arrivals.of(predictions))] if predictions else []
        if reports:
            parts.append(columns.observe(Reports.of([event for event, _ in reports], [one for _, one in reports])))
        if watermark_ms is not None:
            expected += naive.advance(watermark_ms)
            parts.append(columns.advance(watermark_ms))
        told = [emission for part in parts for emission in _told(columns, part, whose=spec.reduce is None)]
        for name, version, *_ in told:
            assert versions.get(name, 0) + 1 == version
            versions[name] = version
        assert [
            (
                c.prediction.prediction_id,
                c.version,
                c.label,
                c.status,
                c.reason,
                c.known_at_ms,
                c.outcome_time_ms,
                c.previous,
                # Of several that come to one value, any may be named.
                c.source if spec.reduce is None else None,
            )
            for c in expected
        ] == told
        if forgets:
            for event in naive.forget():
                versions = {
                    n: v for n, v in versions.items() if n not in {j.prediction.prediction_id for j in event.judged}
                }
            columns.forget()
        columns.table.remove(columns.take_gone())
        if packs:
            columns.pack(columns.watermark_ms)
        assert (naive.counts, naive.side, len(naive.events)) == (columns.counts, columns.side, len(columns))


def _told(state: JoinState, changes: Changes, *, whose: bool) -> list[tuple[Any, ...]]:
    ids = [text.prediction_id for text in state.table.read(changes.rows)]
    columns = (changes.version, changes.label, changes.status, changes.reason, changes.known_at_ms)
    names = state.sources.names if state.sources is not None else [""]
    sources = [names[code] if whose else None for code in changes.source.tolist()]
    columns = (*columns, changes.outcome_time_ms, changes.previous)
    rows = zip(ids, *(c.tolist() for c in columns), sources, strict=True)
    return [
        (
            name,
            version,
            None if np.isnan(label) else label,
            STATUSES[status],
            REASONS[reason],
            known_ms,
            None if outcome_ms == NO_TIME else outcome_ms,
            None if np.isnan(previous) else previous,
            source,
        )
        for name, version, label, status, reason, known_ms, outcome_ms, previous, source in rows
    ]


@pytest.mark.parametrize("arrival", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_most_trusted_source_is_believed_whatever_comes_first(arrival: tuple[int, ...]) -> None:
    reported = [Outcome(9, False, 1.0, 40, source="shop"), Outcome(5, False, 1.0, 30, source="rules", tier=1)]
    reported.append(Outcome(0, False, 0.0, 20, source="analyst", tier=2))
    state = JoinState(msgspec.structs.replace(SPEC, trust=TRUST))
    state.predict(Arrivals.of([P]))
    for at in arrival:
        state.observe(Reports.of(["e"], [reported[at]]))
    final = state.advance(110)
    assert state.sources is not None
    assert [(0.0, "analyst")] == [(final.label[0], state.sources.names[final.source[0]])]


def test_sources_past_the_cap_go_by_one_name_and_those_declared_never_do() -> None:
    book = SourceBook(TRUST)
    many = [f"shop {number}" for number in range(MOST_SOURCES + 10)]
    codes = book.codes([*many, "analyst"])
    assert OTHERS_NAME == book.names[codes[-2]]
    assert "analyst" == book.names[codes[-1]]
    assert len(book.names) == MOST_SOURCES + len(TRUST)
    assert codes.tolist() == SourceBook(TRUST, book.names).codes([*many, "analyst"]).tolist()


def test_full_state_evicts_what_can_only_be_corrected_before_what_still_waits() -> None:
    spec = msgspec.structs.replace(SPEC, max_events=3)
    state = JoinState(spec)
    state.predict(Arrivals.of([_numbered(0), _numbered(1)]))
    state.advance(111)
    state.predict(Arrivals.of([_numbered(200), _numbered(201), _numbered(202)]))
    assert {"evicted_closed": 2} == dict(state.counts)
    state.predict(Arrivals.of([_numbered(300)]))
    assert ["e200"] == [side.event_id for side in state.side]
    assert 3 == len(state)


def _numbered(time_ms: int) -> Scored:
    return msgspec.structs.replace(
        P, prediction_id=f"e{time_ms}:champion", event_id=f"e{time_ms}", event_time_ms=time_ms
    )


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=40), st.integers(0, 7))
def test_cohorts_without_a_row_are_forgotten_and_every_other_row_keeps_its_own(
    drawn: list[tuple[int, bool]], following: int
) -> None:
    table, cohorts = JoinTable(), [Cohort("champion", str(version), b"{}") for version in range(8)]
    numbers = table.cohort_numbers([cohorts[version] for version, _ in drawn])
    count = len(drawn)
    rows = table.add([b"[]"] * count, [0] * count, [0.5] * count, numbers, [0] * count)
    table.remove(rows[[leaves for _, leaves in drawn]] if count else rows)
    table.forget_cohorts()
    left = [(row, cohorts[version]) for row, (version, leaves) in zip(rows.tolist(), drawn, strict=True) if not leaves]
    assert set(table.cohorts) == {cohort for _, cohort in left}
    assert [table.cohorts[table.cohort[row]] for row, _ in left] == [cohort for _, cohort in left]
    assert table.cohorts[table.cohort_numbers([cohorts[following]])[0]] == cohorts[following]
