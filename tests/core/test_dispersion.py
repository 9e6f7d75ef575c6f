"""Design effects of rows that are not independent: against their definition, and the laws they promise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from tailrace.core.dispersion import LEAST_SHARE, _cdf_freedom, dispersions, squeezed
from tailrace.core.drift import PSIState
from tailrace.core.monitors import PSI
from tailrace.core.plan import Plan, RequestColumn
from tailrace.core.reference import HOUR_MS, MONDAY_MS, Dispersion
from tailrace.core.two_samples import INDEPENDENT, DesignEffect, index_laws, index_tails, ks
from tailrace.trainer.reference import reference_of

FEATURES = 12
PLAN = Plan(
    use_case="u",
    version=1,
    key="k",
    event_time="t",
    event_id="e",
    entities=("k",),
    slices=(),
    request=tuple(RequestColumn(name=f"f{at}", kind="field", field=f"f{at}") for at in range(FEATURES)),
    views=(),
    field_types={},
    threshold=0.5,
    default_score=0.1,
    latency_budget_ms=10,
)


def naive_excess(table: list[list[int]], hours: list[int], length: int) -> float:
    """Mean over near spans of the squared difference of shares over that of independent rows, less 1, per row."""
    whole = [sum(column) for column in zip(*table, strict=True)]
    share = [count / sum(whole) for count in whole]
    used = [bin_ for bin_, of in enumerate(share) if of >= LEAST_SHARE]
    spans: dict[int, list[list[int]]] = {}
    for row, hour in zip(table, hours, strict=True):
        spans.setdefault(hour // length, []).append(row)
    seen = [(span, [sum(column) for column in zip(*spans[span], strict=True)]) for span in sorted(spans)]
    near = [
        (one, other)
        for (at, (begin, one)), (after, (end, other)) in combinations(enumerate(seen), 2)
        if after - at == 1 or ((end - begin) * length <= 24 and after - at <= 24 // length)
    ]
    ratios, rows = [], []
    for one, other in near:
        n, m = sum(one), sum(other)
        found = sum((one[b] / n - other[b] / m) ** 2 / share[b] for b in used)
        ratios.append(found / ((1 / n + 1 / m) * sum(1 - share[b] for b in used)))
        rows.append(2 * n * m / (n + m))
    return max(float(np.mean(ratios)) - 1.0, 0.0) / float(np.mean(rows))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1_000), width=st.integers(2, 6))
def test_excess_is_that_of_the_definition(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.choice(400, 60, replace=False))
    table = rng.integers(1, 60, (60, width)) * 3
    [found] = dispersions([table], hours, [False])
    assert found
    for one in found:
        expected = naive_excess(table.tolist(), hours.tolist(), one.span_ms // HOUR_MS)
        assert one.bins == pytest.approx(expected, abs=1e-12)


def bursts(rng: np.random.Generator, size: int, mean: int) -> np.ndarray:
    """Values in bursts of equal rows, of geometric lengths."""
    return rng.normal(size=(size, FEATURES))[np.cumsum(rng.random(size) < 1.0 / mean)]


def times(rng: np.random.Generator, size: int, days: int) -> np.ndarray:
    return MONDAY_MS + np.sort(rng.integers(0, days * 24 * HOUR_MS, size))


def of_day(reference: dict[str, object], *, seasonal: bool) -> list[Dispersion]:
    """What is known of single days, by feature."""
    known = [*reference["features"].values()]  # type: ignore[attr-defined]
    return [
        Dispersion(**one)
        for of in known
        for one in of["dispersions"]
        if one["span_ms"] == 24 * HOUR_MS and one["seasonal"] is seasonal
    ]


def test_independent_rows_have_no_excess_and_bursts_that_of_their_length() -> None:
    rng = np.random.default_rng(1)
    when = times(rng, 40_000, 20)
    alone = reference_of(PLAN, rng.normal(size=(40_000, FEATURES)).astype(np.float32), rng.random(40_000), when)
    effects = [1.0 + 2_000 * one.bins for one in of_day(alone, seasonal=False)]
    assert len(effects) == FEATURES
    assert max(effects) < 1.1
    # Squares of lengths over lengths: (2 * 10^2 - 10) / 10.
    rows = bursts(rng, 40_000, 10).astype(np.float32)
    together = reference_of(PLAN, rows, rng.random(40_000), when)
    for seasonal in (False, True):
        found = of_day(together, seasonal=seasonal)
        assert np.mean([1.0 + 2_000 * one.bins for one in found]) == pytest.approx(19.0, rel=0.15)
        assert np.mean([1.0 + 2_000 * one.steps for one in found]) == pytest.approx(19.0, rel=0.25)


def test_what_follows_the_hours_of_the_week_is_excess_only_against_the_whole() -> None:
    rng = np.random.default_rng(2)
    when = times(rng, 60_000, 28)
    weekend = (when - MONDAY_MS) // (24 * HOUR_MS) % 7 >= 5
    rows = (rng.normal(size=(60_000, FEATURES)) + weekend[:, None]).astype(np.float32)
    reference = reference_of(PLAN, rows, rng.random(60_000), when)
    assert min(60_000 / 28 * one.bins for one in of_day(reference, seasonal=False)) > 5.0
    assert max(60_000 / 28 * one.bins for one in of_day(reference, seasonal=True)) < 0.2


def test_what_follows_the_hours_of_the_day_is_excess_of_hours_where_weeks_are_too_few_to_tell() -> None:
    rng = np.random.default_rng(8)
    when = times(rng, 20_000, 10)
    night = (when // HOUR_MS % 24 < 12).astype(np.float64)
    reference = reference_of(
        PLAN, (rng.normal(size=(20_000, FEATURES)) + night[:, None]).astype(np.float32), rng.random(20_000), when
    )
    known = [Dispersion(**of["dispersions"][0]) for of in reference["features"].values()]
    assert {one.span_ms for one in known} == {HOUR_MS}
    points = np.linspace(-2.0, 3.0, 1_000)
    day, dark = norm.cdf(points), norm.cdf(points - 1.0)
    middle = (day + dark) / 2.0
    at = np.searchsorted(middle, np.arange(1, 20) / 20.0)
    apart = float(((day - middle)[at] ** 2).sum() / (middle * (1.0 - middle))[at].sum())
    assert np.mean([one.steps for one in known]) == pytest.approx(apart, rel=0.1)


def test_change_amid_the_training_data_is_no_property_of_their_spans() -> None:
    rng = np.random.default_rng(7)
    rows, when = rng.normal(size=(40_000, FEATURES)), times(rng, 40_000, 20)
    rows[20_000:] += 1.0
    reference = reference_of(PLAN, rows.astype(np.float32), rng.random(40_000), when)
    effects = [1.0 + 2_000 * one.bins for one in of_day(reference, seasonal=False)]
    # Two levels would make it 200.
    assert max(effects) < 25.0


def test_excess_of_bursts_lies_in_all_directions_and_that_of_days_of_their_own_level_in_one() -> None:
    rng = np.random.default_rng(9)
    when = times(rng, 40_000, 20)
    together = reference_of(PLAN, bursts(rng, 40_000, 10).astype(np.float32), rng.random(40_000), when)
    # Of the squares of 19 equal parts the root is 1 / sqrt(19) of the whole.
    assert np.mean([one.top for one in of_day(together, seasonal=False)]) == pytest.approx(19.0**-0.5, abs=0.08)
    level = 0.4 * rng.normal(size=(21, FEATURES))[(when - MONDAY_MS) // (24 * HOUR_MS)]
    rows = (rng.normal(size=(40_000, FEATURES)) + level).astype(np.float32)
    moving = reference_of(PLAN, rows, rng.random(40_000), when)
    assert min(one.top for one in of_day(moving, seasonal=False)) > 0.7


def test_distribution_functions_differ_in_as_many_directions_as_their_bins_allow() -> None:
    # Anderson and Darling (1952), section 4: parts that weigh as 1/j^2.
    fine = 1.0 / np.arange(1, 1_000) ** 2
    assert _cdf_freedom(np.full(200, 1 / 200)) == pytest.approx(fine.sum() ** 2 / (fine**2).sum(), rel=0.01)
    assert _cdf_freedom(np.array([0.9, 0.1])) == pytest.approx(1.0)
    assert _cdf_freedom(np.array([1.0, 0.0])) == 1.0


def test_ratios_are_moderated_by_their_kin_and_lone_ones_left_as_they_are() -> None:
    rng = np.random.default_rng(3)
    freedom = np.full(500, 12.0)
    alike, worth = squeezed(rng.chisquare(12.0, 500) / 12.0, freedom)
    assert worth > 100.0
    assert np.abs(alike - 1.0).max() < 0.15
    truth = 8.0 / rng.chisquare(8.0, 500)
    apart, worth = squeezed(truth * rng.chisquare(12.0, 500) / 12.0, freedom)
    assert worth == pytest.approx(8.0, rel=0.35)
    assert np.corrcoef(apart, truth)[0, 1] > 0.6
    assert squeezed(np.array([3.0, 1.0]), np.array([9.0, 9.0]))[0].tolist() == [3.0, 1.0]


@pytest.mark.parametrize("top", [1.0, 0.4])
def test_tail_of_the_index_is_that_of_a_sum_of_squares_that_weigh_differently(top: float) -> None:
    rng = np.random.default_rng(4)
    effect = DesignEffect(bins=2.0, freedom=15.0, top=top)
    heaviest, other = 1.0 + 19.0 * top, 1.0 + 19.0 * (1.0 - top) / 18.0
    # What lies in several directions is seen in each.
    known = 15.0 / top**2
    of_others = known * (other / (other - 1.0)) ** 2 if top < 1.0 else np.inf
    spread = rng.chisquare(of_others, 400_000) / of_others if top < 1.0 else 1.0
    drawn = heaviest * rng.standard_t(known, 400_000) ** 2 + other * rng.chisquare(18.0, 400_000) / spread
    levels = np.array([50.0, 80.0, 120.0])
    tails = index_tails(levels, np.full(3, 19.0), [effect] * 3)
    assert tails == pytest.approx([float(np.mean(drawn > level)) for level in levels], rel=0.06)
    assert index_laws(float(tails[1]), np.array([19.0]), [effect]) == pytest.approx([80.0], rel=0.01)


def test_laws_of_a_look_are_those_of_each_subject_alone() -> None:
    effects = [INDEPENDENT, DesignEffect(bins=2.0, freedom=15.0), DesignEffect(bins=20.0, freedom=9.0, top=0.3)]
    freedom = np.array([19.0, 1.0, 7.0])
    together = index_laws(0.001, freedom, effects)
    alone = [float(index_laws(0.001, freedom[at : at + 1], [effect])[0]) for at, effect in enumerate(effects)]
    assert together == pytest.approx(alone, rel=0.002)
    assert together[0] == pytest.approx(43.82, rel=0.001)
    assert together[1] == pytest.approx(2.0 * t.isf(0.0005, 15.0) ** 2, rel=0.002)
    assert index_tails(together, freedom, effects) == pytest.approx(0.001, rel=0.02)


def test_distance_of_rows_that_go_together_is_less_surprising() -> None:
    same, apart = np.full(10, 1_000), np.arange(10) * 20 + 910
    assert ks(same, apart).p_value < ks(same, apart, DesignEffect(steps=4.0, freedom=20.0)).p_value


def test_bursts_alarm_where_rows_are_taken_to_be_independent_and_do_not_where_the_reference_knows() -> None:
    alarms = {True: 0, False: 0}
    for seed in range(8):
        rng = np.random.default_rng([5, seed])
        rows, when = bursts(rng, 24_000, 10).astype(np.float32), times(rng, 24_000, 24)
        for knows in alarms:
            trained = reference_of(PLAN, rows[:20_000], np.zeros(20_000), when[:20_000] if knows else None)
            state = PSIState(PSI(alarm=0.0), PLAN.order, trained)
            state.observe(rows[20_000:], np.zeros(4_000))
            found = state.evaluate(int(when[20_000]), int(when[-1]))
            alarms[knows] += any(sign.drifted for finding in found for sign in finding.signs)
    assert alarms[True] <= 1
    assert alarms[False] >= 7


def test_bursts_are_as_long_as_ever_where_rows_become_fewer() -> None:
    alarms, effects = 0, []
    for seed in range(4):
        rng = np.random.default_rng([10, seed])
        rows = bursts(rng, 20_600, 10).astype(np.float32)
        trained = reference_of(PLAN, rows[:20_000], np.zeros(20_000), times(rng, 20_000, 20))
        state = PSIState(PSI(alarm=0.0, false_alarms=0.3), PLAN.order, trained)
        state.observe(rows[20_000:], np.zeros(600))
        found = state.evaluate(MONDAY_MS + 20 * 24 * HOUR_MS, MONDAY_MS + 25 * 24 * HOUR_MS)
        alarms += any(sign.drifted for finding in found for sign in finding.signs)
        effects += [finding.design_effect for finding in found if finding.subject != "score"]
    assert alarms <= 1
    assert np.mean(effects) == pytest.approx(19.0, rel=0.2)


def test_change_is_found_in_bursts_where_it_is_more_than_their_spread() -> None:
    rng = np.random.default_rng(6)
    rows, when = bursts(rng, 25_000, 10).astype(np.float32), times(rng, 25_000, 25)
    state = PSIState(PSI(), PLAN.order, reference_of(PLAN, rows[:20_000], np.zeros(20_000), when[:20_000]))
    rows[20_000:, 3] += 0.8
    state.observe(rows[20_000:], np.zeros(5_000))
    found = state.evaluate(int(when[20_000]), int(when[-1]))
    assert [f.subject for f in found if any(sign.drifted for sign in f.signs)] == ["f3"]
