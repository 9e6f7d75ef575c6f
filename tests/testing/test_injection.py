"""Faults on recordings: what changes, what does not, and that the same seed changes the same."""

from __future__ import annotations

from typing import Any

import loops
import numpy as np
import pytest

from tailrace.backends.recordings import to_recording
from tailrace.errors import ConfigError
from tailrace.testing.faults import ConceptShift, CovariateShift, Disorder, Drop, Duplicate, LabelDelay, Poison
from tailrace.testing.injection import inject
from tailrace.testing.sent_streams import Streams, streams_of

DAY_MS = loops.DAY_MS


@pytest.fixture(scope="module")
def use_case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loops.use_case(tmp_path_factory.mktemp("use_cases"))[0]


def recorded(use_case: Any) -> Streams:
    events, outcomes = loops.tables(days=2, per_day=500)
    return streams_of(to_recording(events, use_case.requests), to_recording(outcomes, use_case.label.topic))


def changed(use_case: Any, *faults: Any, seed: int = 1) -> Streams:
    return inject(recorded(use_case), faults, use_case, loops.START_MS, seed)


def column(streams: Streams, side: Any, name: str) -> Any:
    return streams.of(side).columns[name].to_numpy(zero_copy_only=False)


def labels(streams: Streams) -> dict[str, bool]:
    ids, said = (column(streams, "outcomes", name) for name in ("reading_id", "failed"))
    return dict(zip(ids.tolist(), said.tolist(), strict=True))


def delays_ms(streams: Streams) -> Any:
    at = dict(zip(column(streams, "events", "reading_id"), column(streams, "events", "at_ms"), strict=True))
    ids, reported = (column(streams, "outcomes", name) for name in ("reading_id", "at_ms"))
    return np.sort([late - at[name] for name, late in zip(ids, reported, strict=True)])


def test_a_concept_shift_keeps_rate_and_delays_and_moves_positives_to_the_column(use_case: Any) -> None:
    before, after = recorded(use_case), changed(use_case, ConceptShift(at="1d", column="heat"))
    was, now = labels(before), labels(after)
    assert sum(was.values()) == sum(now.values())
    assert was.keys() == now.keys()
    np.testing.assert_array_equal(delays_ms(before), delays_ms(after))
    times = dict(zip(column(before, "events", "reading_id"), column(before, "events", "at_ms"), strict=True))
    moved = {name for name in was if was[name] != now[name]}
    assert moved
    assert all(times[name] >= loops.START_MS + DAY_MS for name in moved)
    heat = dict(zip(column(before, "events", "reading_id"), column(before, "events", "heat"), strict=True))
    second_day = [heat[name] for name in heat if times[name] >= loops.START_MS + DAY_MS]
    assert all(heat[name] >= np.quantile(second_day, 0.9) for name in moved if now[name])


def test_a_covariate_shift_moves_the_column_by_its_own_deviation_from_then_on(use_case: Any) -> None:
    before, after = recorded(use_case), changed(use_case, CovariateShift("heat", at="1d", by=0.5))
    was, now = column(before, "events", "heat"), column(after, "events", "heat")
    late = column(before, "events", "at_ms") >= loops.START_MS + DAY_MS
    np.testing.assert_array_equal(was[~late], now[~late])
    np.testing.assert_allclose(now[late] - was[late], 0.5 * was.std())
    assert labels(before) == labels(after)


def test_delays_are_stretched_or_drawn_anew(use_case: Any) -> None:
    before = delays_ms(recorded(use_case))
    np.testing.assert_allclose(delays_ms(changed(use_case, LabelDelay(times=2.5))), 2.5 * before, atol=1)
    drawn = delays_ms(changed(use_case, LabelDelay(mean="6h")))
    assert 5.4 < drawn.mean() / loops.HOUR_MS < 6.6
    assert 5.4 < drawn.std() / loops.HOUR_MS < 6.6


@pytest.mark.parametrize(("source", "speaks"), [("site=s1", 0.25), ("reporter=night", 0.25), ("", 1.0)])
def test_a_poisoned_source_lies_about_its_own_share_and_nothing_else(use_case: Any, source: str, speaks: float) -> None:
    before, after = recorded(use_case), changed(use_case, Poison(source, share=0.4))
    was, now = labels(before), labels(after)
    lies = sum(was[name] != now[name] for name in was)
    assert 0.75 * 0.4 * speaks * 1_000 < lies < 1.25 * 0.4 * speaks * 1_000
    assert was.keys() == now.keys()


def test_a_source_that_reported_nothing_invents_positives_at_usual_delays(use_case: Any) -> None:
    silent = Drop("outcomes"), Poison("site=s1", share=1.0)
    assert not labels(changed(use_case, *silent))
    half = changed(use_case, Drop("outcomes", share=0.5), Poison("site=s1", share=1.0))
    honest = changed(use_case, Drop("outcomes", share=0.5))
    invented = labels(half).keys() - labels(honest).keys()
    assert 90 < len(invented) < 160
    assert all(labels(half)[name] for name in invented)
    assert delays_ms(half).max() <= delays_ms(recorded(use_case)).max()


def test_duplicates_come_again_and_disorder_lets_records_overtake(use_case: Any) -> None:
    doubled = changed(use_case, Duplicate(share=0.1)).events
    assert 70 < len(doubled.arrival_ms) - 1_000 < 130
    disordered = changed(use_case, Disorder(by="10m")).events.recording()
    times = disordered.columns["at_ms"].to_numpy()
    assert (np.diff(times) < 0).any()
    late = disordered.times_ms - times
    assert (late >= 0).all()
    assert late.max() <= 600_000
    assert (np.diff(disordered.times_ms) >= 0).all()


def test_the_same_seed_changes_the_same(use_case: Any) -> None:
    faults = ConceptShift(share=0.5), Poison(share=0.2), LabelDelay(mean="1h"), Duplicate(share=0.2), Disorder(by="1m")
    one, two, other = (changed(use_case, *faults, seed=seed) for seed in (1, 1, 2))
    for side in ("events", "outcomes"):
        assert one.of(side).recording().columns == two.of(side).recording().columns
    assert one.outcomes.recording().columns != other.outcomes.recording().columns


def test_a_source_that_is_not_there_is_named(use_case: Any) -> None:
    with pytest.raises(ConfigError, match="have a field 'colour'"):
        changed(use_case, Poison("colour=red"))
