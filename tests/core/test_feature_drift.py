"""Drift of features and scores: the counting loop against its naive twin, the tests against their laws."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tailrace.core.drift import PSIState
from tailrace.core.drift_findings import PSIFinding
from tailrace.core.drift_kernels import count_values
from tailrace.core.monitors import PSI
from tailrace.core.plan import Plan, RequestColumn
from tailrace.core.reference import HOURS_OF_WEEK, hour_of_week
from tailrace.core.two_samples import ks, psi, rise, wasserstein
from tailrace.trainer.reference import reference_of

DAY_MS = 86_400_000
MONTH_MS = 30 * DAY_MS
MONDAY_MS = 1_736_121_600_000


def plan(*columns: RequestColumn) -> Plan:
    return Plan(
        use_case="u",
        version=1,
        key="k",
        event_time="t",
        event_id="e",
        entities=("k",),
        slices=(),
        request=columns,
        views=(),
        field_types={},
        threshold=0.5,
        default_score=0.1,
        latency_budget_ms=10,
    )


def numbers(width: int) -> Plan:
    return plan(*(RequestColumn(name=f"f{at}", kind="field", field=f"f{at}") for at in range(width)))


def begun(of: Plan, trained: np.ndarray, seed: int = 0, **kwargs: Any) -> PSIState:
    scores = np.random.default_rng(seed).random(len(trained))
    return PSIState(PSI(), of.order, reference_of(of, trained.astype(np.float32), scores, **kwargs))


def look(state: PSIState, rows: np.ndarray, seed: int = 1) -> dict[str, PSIFinding]:
    """One look that may spend the false alarms of a month."""
    state.observe(rows.astype(np.float32), np.random.default_rng(seed).random(len(rows)))
    found = {finding.subject: finding for finding in state.evaluate(MONDAY_MS, MONDAY_MS + MONTH_MS)}
    state.reset()
    return found


def drifted(found: dict[str, PSIFinding]) -> dict[str, list[str]]:
    signs = {name: [sign.detector for sign in finding.signs if sign.drifted] for name, finding in found.items()}
    return {name: detectors for name, detectors in signs.items() if detectors}


def naive_counts(values: list[float], edges: list[float], low: float, high: float) -> list[int]:
    """Bins, missing and unknown values of one column, one value after the other."""
    counts = [0] * (len(edges) + 3)
    for value in values:
        if np.isnan(value):
            counts[-2] += 1
            continue
        counts[sum(edge <= value for edge in edges)] += 1
        known = value in edges if np.isnan(low) else low <= value <= high
        counts[-1] += not known
    return counts


VALUES = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, float("nan"), float("inf")])
EDGES = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0, 2.0]), unique=True).map(sorted)


@settings(max_examples=200, deadline=None)
@given(
    columns=st.lists(st.tuples(EDGES, st.sampled_from([-1.0, float("nan")])), min_size=1, max_size=4), data=st.data()
)
def test_counts_of_the_loop_are_those_of_one_value_after_the_other(
    columns: list[tuple[list[float], float]], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.lists(VALUES, min_size=len(columns), max_size=len(columns)), max_size=20))
    matrix = np.array(rows, dtype=np.float32).reshape(len(rows), len(columns))
    edges = [edges for edges, _ in columns]
    counts = np.zeros(sum(len(own) + 3 for own in edges), np.int64)
    flat = np.array([edge for own in edges for edge in own], dtype=np.float64)
    starts = np.cumsum([0, *(len(own) for own in edges)])
    low = np.array([low for _, low in columns])
    count_values(matrix, np.arange(len(columns)), flat, starts, low, np.ones(len(columns)), counts)
    expected = [naive_counts(matrix[:, at].tolist(), own, low[at], 1.0) for at, own in enumerate(edges)]
    assert counts.tolist() == [count for of_column in expected for count in of_column]


def test_distances_equal_those_of_scipy_and_their_laws() -> None:
    rng = np.random.default_rng(1)
    was, now = rng.integers(0, 50, 4_000), rng.integers(2, 50, 1_500)
    bins = [np.bincount(values, minlength=50) for values in (was, now)]
    theirs = stats.ks_2samp(was, now, method="asymp")
    assert ks(*bins).value == pytest.approx(theirs.statistic)
    assert ks(*bins).p_value == pytest.approx(theirs.pvalue, rel=0.5)
    assert rise(3, 1_000, 9, 500).p_value == pytest.approx(
        stats.binomtest(9, 12, 500 / 1_500, alternative="greater").pvalue
    )
    assert rise(3, 1_000, 0, 500).p_value == 1.0
    edges = np.arange(0.5, 49.5)
    assert wasserstein(*bins, edges, -0.5, 49.5) == pytest.approx(stats.wasserstein_distance(was, now), rel=0.02)


@pytest.mark.parametrize("rows", [200, 5_000])
def test_index_without_a_change_follows_its_law(rows: int) -> None:
    rng = np.random.default_rng(rows)
    found = [psi(rng.multinomial(20_000, [0.05] * 20), rng.multinomial(rows, [0.05] * 20)) for _ in range(2_000)]
    # Rows that are added to bins make it smaller where there are few.
    law = 19 * (1 / rows + 1 / 20_000)
    assert np.mean([one.value for one in found]) == pytest.approx(law * (0.89 if rows == 200 else 1.0), rel=0.05)
    assert np.mean([one.p_value < 0.01 for one in found]) == pytest.approx(0.01, abs=0.008)


def test_index_of_few_rows_passes_a_small_chance_no_more_often_than_it_may() -> None:
    rng = np.random.default_rng(13)
    # A feature that is mostly zero.
    shares, looks, chance = [0.6, *[0.05] * 8], 25_000, 0.0005
    current, reference = rng.multinomial(200, shares, looks), rng.multinomial(20_000, shares, looks)
    passed = sum(psi(was, now).p_value <= chance for was, now in zip(reference, current, strict=True))
    assert passed <= 20  # 12.5 allowed, 28 with half a row added to each bin


@pytest.mark.parametrize("rows", [200, 2_000])
def test_family_of_features_alarms_no_more_often_than_it_may(rows: int) -> None:
    rng = np.random.default_rng(rows)
    alarms = 0
    for _ in range(40):
        state = begun(numbers(20), rng.normal(size=(5_000, 20)))
        alarms += bool(drifted(look(state, rng.normal(size=(rows, 20)))))
    assert alarms <= 6  # 2 expected


@pytest.mark.parametrize("change", ["mean", "spread", "outliers"])
def test_change_of_one_feature_is_found_and_named(change: str) -> None:
    rng = np.random.default_rng(2)
    state = begun(numbers(20), rng.normal(size=(20_000, 20)))
    rows = rng.normal(size=(5_000, 20))
    match change:
        case "mean":
            rows[:, 7] += 0.15
        case "spread":
            rows[:, 7] *= 1.2
        case _:
            rows[:250, 7] = 6.0
    found = look(state, rows)
    assert drifted(found).keys() == {"f7"}
    assert found["f7"].p_value < 1e-4
    if change == "mean":
        assert found["f7"].shift == pytest.approx(0.15 / 1.349, abs=0.03)


def test_change_that_does_not_matter_is_no_drift_however_sure_it_is() -> None:
    rng = np.random.default_rng(3)
    state = begun(numbers(1), rng.normal(size=(200_000, 1)))
    found = look(state, rng.normal(0.03, 1.0, (200_000, 1)))
    assert found["f0"].p_value < 1e-4
    assert drifted(found) == {}


def test_missing_values_and_values_out_of_range_are_counted_apart() -> None:
    rng = np.random.default_rng(4)
    trained = rng.random((20_000, 3))
    trained[rng.random(20_000) < 0.01, 0] = np.nan
    state = begun(numbers(3), trained)
    rows = rng.random((1_000, 3))
    rows[rng.random(1_000) < 0.01, 0] = np.nan
    rows[:20, 1] = np.nan
    rows[:20, 2] = 1e6
    # Missing values have a bin of the index too.
    assert drifted(look(state, rows)) == {"f1": ["PSI", "missing"], "f2": ["out_of_range"]}


def test_unknown_category_is_told_from_known_ones() -> None:
    of = plan(RequestColumn(name="shop", kind="category", field="shop", buckets=256))
    rng = np.random.default_rng(5)
    state = begun(of, rng.choice([3.0, 10.0, 200.0], (20_000, 1)))
    rows = rng.choice([3.0, 10.0, 200.0], (1_000, 1))
    assert drifted(look(state, rows)) == {}
    rows[:20] = 11.0
    found = look(state, rows)
    assert drifted(found) == {"shop": ["unknown_category"]}
    [sign] = [sign for sign in found["shop"].signs if sign.drifted]
    assert sign.value == pytest.approx(0.02)


def test_same_hours_of_the_week_are_the_reference_where_the_training_data_tell_them() -> None:
    rng = np.random.default_rng(6)
    times = MONDAY_MS + rng.integers(0, 28 * DAY_MS, 80_000)

    def values(times_ms: np.ndarray) -> np.ndarray:
        night = times_ms // 3_600_000 % 24 < 6
        return (rng.normal(size=len(times_ms)) + 3.0 * night).reshape(-1, 1)

    trained = values(times)
    state, blind = (begun(numbers(1), trained, times_ms=at) for at in (times, None))
    nights = MONDAY_MS + 70 * DAY_MS + rng.integers(0, 6 * 3_600_000, 3_000)
    rows = values(nights).astype(np.float32)
    scores = rng.random(3_000)
    judged = []
    for one in (state, blind):
        one.observe(rows, scores)
        found = one.evaluate(MONDAY_MS + 70 * DAY_MS, MONDAY_MS + 70 * DAY_MS + 6 * 3_600_000)
        judged.append({finding.subject: finding for finding in found})
    assert [found["f0"].seasonal for found in judged] == [True, False]
    assert [drifted(found).keys() for found in judged] == [set(), {"f0"}]
    assert hour_of_week(np.array([MONDAY_MS, MONDAY_MS - 1])).tolist() == [0, HOURS_OF_WEEK - 1]


def test_look_of_an_hour_is_compared_with_the_few_rows_of_that_hour_and_not_with_the_whole_week() -> None:
    rng = np.random.default_rng(11)
    times = MONDAY_MS + rng.integers(0, 21 * DAY_MS, 60_000)

    def values(times_ms: np.ndarray) -> np.ndarray:
        return (rng.normal(size=len(times_ms)) + 2.0 * np.sin(times_ms / DAY_MS * 2.0 * np.pi)).reshape(-1, 1)

    state = begun(numbers(1), values(times), times_ms=times)
    since = MONDAY_MS + 70 * DAY_MS
    for minute in range(0, 24 * 60, 100):
        begin = since + minute * 60_000
        rows = values(begin + rng.integers(0, 3_600_000, 400)).astype(np.float32)
        state.observe(rows, rng.random(400))
        found = {finding.subject: finding for finding in state.evaluate(begin, begin + 3_600_000)}
        state.reset()
        assert found["f0"].seasonal
        assert sum(found["f0"].reference) < 1_000
        assert drifted(found) == {}


def test_hours_of_the_week_count_by_the_part_of_them_that_a_look_covers() -> None:
    rng = np.random.default_rng(12)
    times = MONDAY_MS + rng.integers(0, 28 * DAY_MS, 200_000)
    state = begun(numbers(1), times.reshape(-1, 1) // 3_600_000 % 24, times_ms=times)
    by_hour = np.bincount((times - MONDAY_MS) // 3_600_000 % HOURS_OF_WEEK)
    state.observe(np.zeros((300, 1), np.float32), rng.random(300))
    quarters = MONDAY_MS + 45 * 60_000, MONDAY_MS + 150 * 60_000
    [found, _] = state.evaluate(*quarters)
    assert sum(found.reference) == pytest.approx(by_hour[0] / 4 + by_hour[1] + by_hour[2] / 2, abs=2)


def test_shorter_looks_spend_less_of_the_false_alarms() -> None:
    rng = np.random.default_rng(7)
    state = begun(numbers(1), rng.normal(size=(20_000, 1)))
    state.observe(rng.normal(size=(1_000, 1)).astype(np.float32), rng.random(1_000))
    spans = (3_600_000, DAY_MS, MONTH_MS)
    limits = [state.evaluate(MONDAY_MS, MONDAY_MS + span)[0].threshold for span in spans]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > limits[2]


def test_few_rows_are_not_judged_and_no_reference_judges_nothing() -> None:
    rng = np.random.default_rng(8)
    state = begun(numbers(1), rng.normal(size=(5_000, 1)))
    assert look(state, np.full((199, 1), 9.0)) == {}
    blind = PSIState(PSI(), ("f0",), None)
    assert look(blind, np.zeros((1_000, 1))) == {}


def test_reference_and_counts_of_an_older_release_are_read() -> None:
    rng = np.random.default_rng(9)
    trained, scores = rng.normal(size=20_000), rng.random(20_000)
    histograms = {}
    for name, values in (("f0", trained), ("score", scores)):
        edges = np.quantile(values, np.linspace(0, 1, 21)[1:-1])
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=20)
        histograms[name] = {"edges": edges.tolist(), "counts": counts.tolist(), "nulls": 0}
    old = {"rows": 20_000, "features": {"f0": histograms["f0"]}, "score": histograms["score"]}
    stored = {"f0": [10] * 20 + [0], "score": [10] * 20 + [0]}
    state = PSIState(PSI(), ("f0",), old, stored)
    assert state.snapshot() == {"f0": [10] * 20 + [0, 0], "score": [10] * 20 + [0, 0]}
    assert drifted(look(state, rng.normal(size=(2_000, 1)))) == {}
    found = look(state, rng.normal(0.3, 1.0, (2_000, 1)))
    assert drifted(found) == {"f0": ["PSI"]}
    assert found["f0"].shift == pytest.approx(0.3 / 1.349, abs=0.06)
    assert [len(found["f0"].edges), len(found["f0"].reference)] == [19, 21]


def test_order_of_rows_does_not_matter_and_counts_survive_a_restart() -> None:
    rng = np.random.default_rng(10)
    trained = rng.normal(size=(5_000, 3))
    rows, scores = rng.normal(size=(3_000, 3)).astype(np.float32), rng.random(3_000)
    rows[::7, 1] = np.nan
    one = begun(numbers(3), trained)
    one.observe(rows, scores)
    half = begun(numbers(3), trained)
    half.observe(rows[1_500:], scores[1_500:])
    stored = msgspec.json.decode(msgspec.json.encode(half.snapshot()))
    known = reference_of(numbers(3), trained.astype(np.float32), np.random.default_rng(0).random(5_000))
    two = PSIState(PSI(), numbers(3).order, msgspec.json.decode(msgspec.json.encode(known)), stored)
    two.observe(rows[:1_500], scores[:1_500])
    span = MONDAY_MS, MONDAY_MS + DAY_MS
    assert one.evaluate(*span) == two.evaluate(*span)
